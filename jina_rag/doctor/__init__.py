"""Whether this machine computes what the published models compute: `report.examine` is the way in."""
