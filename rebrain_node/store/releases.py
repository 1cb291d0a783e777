"""Which bundles were in force on this node, as its audit log tells."""

from __future__ import annotations

import re

from sqlalchemy import select

from rebrain_node.domain.audit import Event
from rebrain_node.domain.release import VERSION, Release
from rebrain_node.store.audit import read_details
from rebrain_node.store.database import Database
from rebrain_node.store.tables import AuditRow


class Releases:
    """The bundles that a node has used; it changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def named(self, name: str) -> tuple[Release, ...]:
        """Every bundle of one name that was in force, each once, in no order.

        A version that is no row of numbers, which earlier software took, compares with nothing
        and is left out.
        """
        query = (
            select(AuditRow.subject, AuditRow.details)
            .where(AuditRow.event == str(Event.BUNDLE_VERIFIED))
            .distinct()
        )
        with self._database.reading() as session:
            rows = session.execute(query).all()
        told = [(digest, read_details(details)) for digest, details in rows]
        return tuple(
            {
                Release(name=name, version=details["version"], digest=digest)
                for digest, details in told
                if details["name"] == name and re.fullmatch(VERSION, details["version"])
            }
        )
