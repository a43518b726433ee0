"""Parsing of files into pages: file discovery, rendering, text layers, OCR and layout analysis."""
