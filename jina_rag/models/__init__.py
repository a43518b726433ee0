"""Models by name, and the embedded default "lite": `registry` is the way in."""
