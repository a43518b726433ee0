"""What an evaluation found, for people: one HTML file with everything in it, or a Markdown table."""

from jina_rag.evaluation.report.html import write_html
from jina_rag.evaluation.report.table import markdown

__all__ = ["markdown", "write_html"]
