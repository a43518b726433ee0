"""Layout analysis: charts, tables, figures, captions and text lines of a page."""
