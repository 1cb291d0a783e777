"""Data sets of subjects in their own layouts in, one prepared format out."""
