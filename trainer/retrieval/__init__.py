"""Knowledge bases for retrieval, and how well the encoder finds."""
