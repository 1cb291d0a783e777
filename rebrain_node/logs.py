"""How the node's processes log: JSON lines on standard error, no patient data.

Our own lines carry ledger ids and short references. Lines of libraries are cut to their first
line without trace, and UIDs in them become references too.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import sys
from typing import Final

import structlog

from rebrain_node.domain.text import reference

#: four or more components: a DICOM UID and no version number (PS3.5 section 9.1)
_UID: Final = re.compile(r"\d+(?:\.\d+){3,}")


def log_as_json(process: str) -> None:
    """Send all logs of this process to standard error; ``process`` names it in each line."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            lambda _logger, _method, line: {"process": process, **line},
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Libraries()]
    root.setLevel(logging.WARNING)


def _unless_address(digits: str) -> str:
    """Return the short id of a UID; an IPv4 address, which looks like one, stays."""
    try:
        return str(ipaddress.IPv4Address(digits))
    except ValueError:
        return reference(digits)


class _Libraries(logging.Handler):
    """Passes the lines of libraries on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage().splitlines()[0]
        except (TypeError, ValueError, IndexError):
            text = str(record.msg)
        cause = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        structlog.get_logger().log(
            record.levelno,
            _UID.sub(lambda match: _unless_address(match.group()), text),
            library=record.name,
            **({} if cause is None else {"exception": cause}),
        )
