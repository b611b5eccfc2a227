"""Each registry function in a transaction of its own."""

from app import registry
from app.db import Database
from app.tables import Checkpoint, ModelVersion


def publish(database: Database, checkpoint: Checkpoint, name: str = "numbers") -> ModelVersion:
    with database.writing() as session:
        return registry.publish_checkpoint(session, checkpoint.id, name)


def resolve(database: Database, ref: str) -> registry.Resolved:
    with database.reading() as session:
        return registry.resolve(session, ref)


def delete(database: Database, ref: str) -> list[str]:
    with database.writing() as session:
        return registry.delete(session, ref)


def put_alias(database: Database, name: str, alias: str, version: int) -> None:
    with database.writing() as session:
        registry.put_alias(session, name, alias, version)
