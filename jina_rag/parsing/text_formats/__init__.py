"""Formats of text without pages, which become pages of A4: HTML, EPUB, Markdown, plain text, tables (CSV) and mail."""
