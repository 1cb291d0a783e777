"""The training loops of bridge, control branch and encoder."""
