"""From a query to ranked pages: stages as values, and what each does."""
