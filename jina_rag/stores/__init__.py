"""Where vectors and page images are kept: the embedded store, its schema, and image files beside it."""
