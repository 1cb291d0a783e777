"""Alembic's entry: runs the versions over the connection that the store opened."""

from alembic import context

from rebrain_node.store.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    transactional_ddl=False,  # the store's own transaction is around all of it
    render_as_batch=True,  # SQLite cannot alter a column in place
)
context.run_migrations()
