"""The model, shared with the trainer; the only room of torch beside its engine."""
