"""The Qdrant stores: the embedded engine in a folder, and a server or cluster."""
