"""Where state lives, how long it is kept, and where its health is read."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from rebrain_node.settings.values import Port, Section


class Storage(Section):
    """Where state lives."""

    folder: Path = Field(
        default=Path("/var/lib/rebrain-node"),
        description="where instances, database and results live; one node a folder",
    )
    machine_folder: Path | None = Field(
        default=None,
        description=(
            "where several machines share `storage.folder`: a folder of this machine alone, for "
            "its lock, the report of its processes and its compiled plans; none means "
            "`storage.folder`"
        ),
    )
    database_url: str | None = Field(
        default=None,
        description=(
            "database of the node, e.g. `postgresql+psycopg://user@host/name`; none means SQLite "
            "inside `storage.folder`"
        ),
    )
    soft_mark_bytes: int = Field(
        default=5_000_000_000, ge=0, description="below this much free disk no new study is judged"
    )
    hard_mark_bytes: int = Field(
        default=1_000_000_000,
        ge=0,
        description="below this much free disk C-STORE is answered 0xA700",
    )

    @property
    def has_server(self) -> bool:
        """Whether the database is PostgreSQL, which several machines may share."""
        return (self.database_url or "").startswith("postgresql")

    @property
    def own_folder(self) -> Path:
        """The folder of this machine alone."""
        return self.machine_folder or self.folder

    @model_validator(mode="after")
    def _several_machines_share_a_server(self) -> Self:
        if self.machine_folder is not None and not self.has_server:
            raise ValueError(
                "storage.machine_folder is for several machines, and SQLite is for one: set "
                "storage.database_url to a PostgreSQL database that all of them share"
            )
        return self


class RetentionSettings(Section):
    """How long stored bytes are kept; rows of the ledger are kept, the log's by `audit.years`."""

    delivered_days: float = Field(
        default=30.0,
        ge=0,
        description=(
            "days after which received instances and results are deleted that every destination "
            "has confirmed"
        ),
    )
    refused_days: float = Field(
        default=30.0,
        ge=0,
        description="days after which received instances of refused and failed series are deleted",
    )


class AuditSettings(Section):
    """How often the audit log is signed, and how long its rows are kept."""

    checkpoint_rows: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="a signed checkpoint is written at the latest after this many rows",
    )
    checkpoint_minutes: float = Field(
        default=10.0,
        gt=0,
        le=1440,
        description=(
            "a signed checkpoint is written at the latest this long after the one before, minutes, "
            "where there are new rows; and soon after each published series"
        ),
    )
    years: float | None = Field(
        default=None,
        ge=1,
        le=100,
        description=(
            "rows older than this are exported to the folder `audit-archive`, sealed by a signed "
            "checkpoint and removed; none keeps all rows permanently"
        ),
    )


class HealthSettings(Section):
    """Probes and metrics for a monitoring system on this machine."""

    port: Port | None = Field(
        default=None,
        description=(
            "TCP port on 127.0.0.1 for `/healthz`, `/readyz` and `/metrics`, e.g. 11180; none "
            "means that nothing listens"
        ),
    )
