"""How Alembic runs here: always inside the process, on the connection and in the transaction that `Database.migrate` opened."""

from alembic import context

from app.tables import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
