"""What the node takes on this machine, beside what others take in the same run: `benchmark`."""
