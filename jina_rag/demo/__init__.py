"""The demo: sample documents, five queries and an HTML report of their hits."""
