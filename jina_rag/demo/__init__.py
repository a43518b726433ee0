"""The demonstration: sample documents, five questions, and a report that shows the pages that answer them."""
