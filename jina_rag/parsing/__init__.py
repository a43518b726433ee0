"""Parsing: finds documents, renders pages, and extracts the words (text layer, OCR) and regions of each page."""
