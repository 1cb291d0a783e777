"""Room of the inference engines."""
