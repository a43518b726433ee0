"""Where charts, tables, figures, captions and lines of text are on a page."""
