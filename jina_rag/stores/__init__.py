"""Vector stores, their payload schema and filters, and the files of page images."""
