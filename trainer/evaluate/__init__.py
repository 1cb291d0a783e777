"""`rebrain-train evaluate`: how good a bundle is, beside baselines."""
