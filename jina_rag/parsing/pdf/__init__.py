"""PDF renderers: PyMuPDF, and PDFium as the second one."""
