"""Room of sqlalchemy: the ledger, the audit log and the outbox."""
