"""What a chat model is given: page images, captions, sources, and the pages' words as data."""
