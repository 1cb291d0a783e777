"""From a finished run to a bundle: graphs, weights, model card."""
