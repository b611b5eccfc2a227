"""Published models, and how a reference names a generator.

    digits              the newest version of the model
    digits:3            that version, for ever
    digits@prod         the version that the alias points at now
    ckpt_0f3a...        the snapshot of a checkpoint, for as long as its job is kept
    job_77c1...         the newest snapshot of a job, also while it trains

Every function takes the session of a transaction and leaves committing to it.
"""

from app.registry.changes import (
    SNAPSHOT_FILES,
    beginning_with,
    check_no_batch,
    delete,
    delete_alias,
    published,
    put_alias,
    snapshot_objects,
)
from app.registry.pins import forget, is_pinned, pin, pins, unpin
from app.registry.publishing import publish, publish_checkpoint
from app.registry.references import (
    LIVE,
    Model,
    Resolved,
    get_model,
    get_version,
    hold,
    list_models,
    parse,
    resolve,
)

__all__ = [
    "LIVE", "SNAPSHOT_FILES", "Model", "Resolved", "beginning_with", "check_no_batch", "delete", "delete_alias", "forget", "get_model", "get_version", "hold",
    "is_pinned", "list_models", "parse", "pin", "pins", "publish", "publish_checkpoint", "published", "put_alias", "resolve", "snapshot_objects", "unpin",
]  # fmt: skip
