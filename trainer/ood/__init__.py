"""The out-of-distribution (OOD) model of a bundle: series, fit and report."""
