"""Worker processes that render documents, so that a crash fails one page instead of the run."""
