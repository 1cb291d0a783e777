"""What people read: the audit report, pictures."""
