"""Check of the text layer of a page: characters that do not agree with the pixels, and their replacement by OCR."""
