"""Situations of the field, each with the right answer: ``python -m tests.field``."""
