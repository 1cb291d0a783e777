"""Room of the inference libraries: one evaluation of a network; sampling is in `model`."""
