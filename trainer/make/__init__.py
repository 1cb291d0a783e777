"""`rebrain-train make` as a function: from a folder of pairs to a bundle, or to why not."""
