"""Where on a page the answer stands: heat maps, boxes, citations."""
