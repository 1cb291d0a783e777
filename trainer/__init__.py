"""Makes the model bundles (`rebrain-train`)."""
