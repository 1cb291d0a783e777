"""Received instances: the durable inbox and when a study counts as complete."""
