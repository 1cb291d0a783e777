"""CT simulated from heads whose T1 is known."""
