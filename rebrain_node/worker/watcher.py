"""Finds what there is to do: studies that have become complete, series accepted, sets not sent.

Runs in one worker process. Everything it starts may have been started before: starting twice
does nothing, so that a start of the node is also its recovery.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from rebrain_node.domain.ledger import Judgement, SeriesRecord
from rebrain_node.errors import StoreUnavailable, Superseded
from rebrain_node.worker.durable import Durable
from rebrain_node.worker.work import Work, reason_of, reference

#: pause between two looks at the ledger, s
LOOK_S: Final = 0.25
