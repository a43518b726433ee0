"""From a question to ranked pages: stages as values, and what each does."""
