"""Context for a chat model: page images and numbered sources, with page text enclosed in tags and declared as data."""
