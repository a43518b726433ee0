"""`DocumentIndex`: an index of page screenshots in a folder or on a Qdrant server."""
