"""evaluations and probes

Revision ID: 0003
Revises: 0002
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "probes",
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("desired", sa.String(length=8), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("queued_at", sa.Double(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("claimed_at", sa.Double(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("rung_at", sa.Double(), nullable=True),
        sa.Column("worker", sa.String(length=255), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("probes", schema=None) as batch_op:
        batch_op.create_index("ix_probes_runnable", ["status", "priority", "queued_at"], unique=False)

    op.add_column("jobs", sa.Column("chosen_preset", sa.String(length=40), nullable=True))
    op.add_column("jobs", sa.Column("preset_reason", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("initial", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("evaluation", sa.JSON(), nullable=True))
    op.add_column("checkpoints", sa.Column("evaluation", sa.JSON(), nullable=True))
    op.add_column("model_versions", sa.Column("evaluation", sa.JSON(), nullable=True))
    op.add_column("workers", sa.Column("gpus", sa.BigInteger(), nullable=True))
    op.add_column("workers", sa.Column("cores", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    added = {
        "workers": ("cores", "gpus"),
        "model_versions": ("evaluation",),
        "checkpoints": ("evaluation",),
        "jobs": ("evaluation", "initial", "preset_reason", "chosen_preset"),
    }
    for table, columns in added.items():
        with op.batch_alter_table(table, schema=None) as batch_op:
            for column in columns:
                batch_op.drop_column(column)

    with op.batch_alter_table("probes", schema=None) as batch_op:
        batch_op.drop_index("ix_probes_runnable")

    op.drop_table("probes")
