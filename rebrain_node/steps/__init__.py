"""Verbs of the path: values in, values out; no socket, database, file or clock."""
