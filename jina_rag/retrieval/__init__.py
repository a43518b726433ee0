"""Where models, stores and ingestion meet: fill an index, search it, explain what was found."""
