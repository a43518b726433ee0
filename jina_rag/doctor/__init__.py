"""Whether this machine computes what the published models compute: `examination.examine` is the way in."""
