"""Room of DBOS: the durable work of the node.

``work`` says what is done and what a failure means, ``durable`` makes it survive a crash,
``watcher`` finds what there is to do. DBOS holds progress and retries, the ledger and the
outbox hold facts; every piece of work looks at the facts first, so doing it twice does no harm.
"""
