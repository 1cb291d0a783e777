"""What a running node reads again at SIGHUP, and what waits for its next start.

The supervisor passes SIGHUP to each process, and each takes what concerns it: the receiver its
peers, a worker the limits. Settings that cannot be read change nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import structlog

from rebrain_node.app.compose import configure, open_bundle, read_limits
from rebrain_node.domain.audit import Event
from rebrain_node.errors import RebrainError, StoreUnavailableError
from rebrain_node.settings import Settings, load_settings

if TYPE_CHECKING:
    from rebrain_node.pipeline import Configuration
    from rebrain_node.ports import AuditLog

#: settings that need no restart; `query` of a peer is not among them
RELOADED: Final = frozenset({"receiver.peers", "limits"})


class Reload:
    """Reads the settings of one process again.

    Parameters
    ----------
    process
        Its name in the audit log.
    source
        The settings file, None where there is none, and the settings that it started with.
    take
        Called with the new settings; it returns the names of what it has taken over.
    """

    def __init__(
        self,
        process: str,
        source: tuple[Path | None, Settings],
        audit: AuditLog,
        take: Callable[[Settings], list[str]],
    ) -> None:
        self._process = process
        self._config, self._started_with = source
        self._audit = audit
        self._take = take

    def __call__(self) -> None:
        """Read them, take over what can be, and record what needs a restart."""
        log = structlog.get_logger(self._process)
        try:
            settings = load_settings(self._config)
            taken = self._take(settings)
        except RebrainError as error:
            log.warning("settings not read again; those before stay", reason=str(error))
            return
        waiting = sorted(changed(self._started_with, settings) - RELOADED)
        log.info("settings read again", taken=taken, need_restart=waiting)
        details: Mapping[str, Any] = {"taken": taken, "need_restart": waiting}
        with suppress(StoreUnavailableError):  # the log has it, and the node goes on
            self._audit.record(Event.SETTINGS_RELOADED, self._process, details)


def changed(before: Settings, after: Settings) -> set[str]:
    """Name the settings that differ; for the `query` of peers ``receiver.peers.query``."""
    old, new = (dict(_flat(each.model_dump(mode="json"))) for each in (before, after))
    names = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    asked = [
        {(peer.ae_title, peer.query) for peer in each.receiver.peers if peer.query is not None}
        for each in (before, after)
    ]
    if asked[0] != asked[1]:
        names.add("receiver.peers.query")
    return names


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


class CurrentConfiguration:
    """What a result depends on; made at first use, and again once the limits were read again.

    Parameters
    ----------
    digest
        Of the bundle that was verified. Another one ends this process, so that the supervisor
        starts it again and it is verified.
    """

    def __init__(self, settings: Settings, digest: str) -> None:
        self._settings = settings
        self._digest = digest
        self._lock = Lock()
        self._made: Configuration | None = None
        self._limits = read_limits(settings).digest

    def __call__(self) -> Configuration:
        """Return it."""
        with self._lock:
            if self._made is None:
                bundle = open_bundle(self._settings).bundle
                if bundle.digest != self._digest:
                    structlog.get_logger("worker").error(
                        "bundle was replaced; starting again to verify it",
                        verified=self._digest[:16],
                        found=bundle.digest[:16],
                    )
                    os._exit(1)
                self._made = configure(self._settings, bundle)
            return self._made

    def take_limits(self, settings: Settings) -> list[str]:
        """Use the limits of these settings from the next series on; name what changed.

        Raises
        ------
        SettingsError
            They are not fit to run; those before stay.
        """
        digest = read_limits(settings).digest
        with self._lock:
            if digest == self._limits:
                return []
            self._settings = self._settings.model_copy(update={"limits": settings.limits})
            self._limits, self._made = digest, None
        return ["limits"]
