"""Chat model context: page images, captions, numbered sources, and page text fenced as data."""
