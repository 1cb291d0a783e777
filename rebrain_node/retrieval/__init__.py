"""Room of faiss: the knowledge base."""
