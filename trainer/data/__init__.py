"""Volumes of subjects: other people's data sets in, one prepared format out."""
