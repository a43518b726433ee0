"""Reports of an evaluation: a self-contained HTML file and Markdown tables."""

from jina_rag.evaluation.report.html import write_html
from jina_rag.evaluation.report.table import markdown

__all__ = ["markdown", "write_html"]
