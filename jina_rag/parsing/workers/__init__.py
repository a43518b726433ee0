"""Worker processes that open documents, so that one bad file costs a page and not the run."""
