"""Room of the inference engines: one evaluation of the network each, nothing of the bridge."""
