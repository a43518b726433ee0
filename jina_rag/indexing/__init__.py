"""From pages to points: planning a run, embedding, building points, writing them."""
