"""PDF renderers: PyMuPDF (default) and PDFium."""
