"""Whole DICOM files taken into a spool, as the receiver takes them."""

from __future__ import annotations

from contextlib import closing

from rebrain_node.domain.ledger import Reception
from rebrain_node.instance.scan import scan
from rebrain_node.reception.inbox import Spool


def take(spool: Spool, content: bytes, calling_ae_title: str) -> Reception:
    """Take one DICOM file."""
    with closing(spool.begin(content)) as arrival:
        return spool.take(arrival, scan(content), calling_ae_title=calling_ae_title)
