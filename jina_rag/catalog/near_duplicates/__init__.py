"""Pages that show nearly the same: marked when they are indexed, folded when they are shown."""
