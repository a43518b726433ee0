"""Vector stores on Qdrant: the embedded engine over a folder, and a server or cluster."""
