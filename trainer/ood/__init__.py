"""The out-of-distribution model of a bundle: fit and report."""
