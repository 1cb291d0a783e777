"""Room of DBOS: the durable work of the node.

``work`` says what is done and what a failure means, ``workflow`` makes it survive a crash,
``watcher`` finds what is due. DBOS holds progress and retries, the ledger and the outbox hold
facts; every piece of work reads the facts first, so repeating it is harmless.
"""
