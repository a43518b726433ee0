"""The front door: `DocumentIndex`, an index in a folder or on a Qdrant server."""
