"""`doctor`: whether this installation is fit, line by line, with what helps where it is not."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel

from rebrain_node.errors import NoStateError, RebrainError, SettingsError, os_error_words

if TYPE_CHECKING:
    from rebrain_node.settings import Settings

CheckState = Literal["ok", "warn", "fail"]
#: state and sentence of a check; where it raises, it has failed
Said = tuple[CheckState, str]

#: rows at the end of the audit log that `doctor` verifies
_NEWEST_ROWS: Final = 1000
#: a whole verification of the audit log is due after so long
_VERIFY_EVERY: Final = timedelta(days=31)
#: the disk is to last so long, days
_DISK_DAYS: Final = 14.0
_YEAR_DAYS: Final = 365.0
#: clocks are to agree within, s
_CLOCK_S: Final = 2.0
_COMMAND_S: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class DoctorCheck:
    """One thing that was checked."""

    what: str
    state: CheckState
    found: str  #: a sentence; where it is not fit, with what helps

    @property
    def fit(self) -> bool:
        """Whether nothing has failed; a warning is no failure."""
        return self.state != "fail"


def check(what: str, run: Callable[[], Said]) -> DoctorCheck:
    """Run one check; an error is its failure."""
    try:
        state, found = run()
    except RebrainError as error:
        state, found = "fail", str(error)
    except OSError as error:
        state, found = "fail", os_error_words(error)
    return DoctorCheck(what=what, state=state, found=found)


def checks_of_the_node(settings: Settings) -> Iterator[DoctorCheck]:
    """Check what lies on this machine."""
    for what, run in _CHECKS.items():
        yield check(what, partial(run, settings))


def _settings(settings: Settings) -> Said:
    from rebrain_node.app.settings_check import settings_faults

    if faults := settings_faults(settings):
        return "fail", "; ".join(faults)
    return "ok", "no setting contradicts another"


def _limits(settings: Settings) -> Said:
    from rebrain_node.app.compose import read_limits

    return "ok", f"digest {read_limits(settings).digest[:12]}"


def _disk(settings: Settings) -> Said:
    from rebrain_node.app.compose import find_state
    from rebrain_node.app.health import storage_use

    folder = settings.storage.folder.absolute()
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    free, mark = shutil.disk_usage(there).free, settings.storage.soft_mark_bytes
    if free < mark:
        return (
            "fail",
            (
                f"{free / 1e9:.1f} GB free in {settings.storage.folder}, the soft mark is "
                f"{mark / 1e9:.1f} GB; make room or lower storage.soft_mark_bytes"
            ),
        )
    found = f"{free / 1e9:.1f} GB free in {settings.storage.folder}"
    try:
        with find_state(settings) as state:
            days = storage_use(settings, state)["days_left"]
    except NoStateError:
        days = None
    if not isinstance(days, float):
        return "ok", f"{found}; too little was received for a forecast"
    lasts = f"{days:.0f} days" if days < _YEAR_DAYS else "more than a year"
    found = f"{found}, which lasts {lasts} at the present rate"
    if days >= _DISK_DAYS:
        return "ok", found
    return (
        "warn",
        (
            f"{found}, less than {_DISK_DAYS:.0f}; make room, or lower retention.delivered_days, "
            "and run `rebrain-node storage purge`"
        ),
    )


def _database(settings: Settings) -> Said:
    from rebrain_node.app.compose import find_state, has_bytes, require_sqlite

    require_sqlite(settings)
    try:
        with find_state(settings) as state:
            sequence, _ = state.audit.head()
    except NoStateError as error:
        if has_bytes(settings.storage.folder):
            raise
        return "ok", str(error)  # before the first start of the node this is as it should be
    return "ok", f"{sequence} events on the audit log"


def _clock(settings: Settings) -> Said:
    """Hold the clock against the database's, the newest event, and the machine's time service."""
    from rebrain_node.app.compose import find_state

    offset_s, newest = None, None
    try:
        with find_state(settings) as state:
            offset_s = state.database.clock_offset_s()
            newest = next((one.recorded_at for one in state.audit.events(1)), None)
    except NoStateError:
        pass
    now = datetime.now(UTC)
    if newest is not None and newest > now + timedelta(seconds=_CLOCK_S):
        return (
            "fail",
            (
                f"the newest event of the audit log is of {newest:%Y-%m-%dT%H:%M:%SZ}, and it is "
                f"{now:%Y-%m-%dT%H:%M:%SZ} by this machine's clock: it was set back; set the clock"
            ),
        )
    if offset_s is not None and abs(offset_s) > _CLOCK_S:
        return (
            "fail",
            (
                f"the clock of the database's machine differs by {offset_s:.1f} s, more than "
                f"{_CLOCK_S:.0f} s; let both machines use the same time server"
            ),
        )
    return _time_service()


def _time_service() -> Said:
    """Ask systemd whether the clock is synchronised."""
    program = shutil.which("timedatectl")
    answer = ""
    if program is not None:
        command = (program, "show", "--property=NTPSynchronized", "--value")
        try:
            run = subprocess.run(  # noqa: S603 - a fixed command, no shell
                command, capture_output=True, text=True, timeout=_COMMAND_S, check=False
            )
            answer = run.stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            answer = ""
    if answer == "yes":
        return "ok", "synchronised with a time server (timedatectl)"
    if answer == "no":
        return (
            "warn",
            (
                "not synchronised with a time server (timedatectl): times of the audit log and of "
                "objects may be wrong; set up NTP, e.g. `timedatectl set-ntp true`"
            ),
        )
    return "ok", "whether it is synchronised is not known: timedatectl gives no answer; see to NTP"


def _audit_log(settings: Settings) -> Said:
    """Verify the end of the log, and say when all of it was verified."""
    from rebrain_node.app.compose import audit_check, find_state
    from rebrain_node.app.verification import last_verification

    try:
        with find_state(settings) as state:
            fault = audit_check(state).tail(_NEWEST_ROWS)
            sequence, _ = state.audit.head()
            oldest = next(state.audit.stream(None, None), None)
    except NoStateError:
        return "ok", "there is none yet"
    if fault is not None:
        return "fail", f"{fault}; run `rebrain-node audit verify`, and keep its output"
    last, now = last_verification(settings.storage.folder), datetime.now(UTC)
    newest = f"the newest {min(sequence, _NEWEST_ROWS)} rows are as they were written"
    if last is not None and not last.intact:
        return "fail", f"it was not as written at {last.at}; run `rebrain-node audit verify`"
    verified = last.moment if last is not None else None
    since = verified or (oldest.recorded_at if oldest is not None else now)
    when = "never verified as a whole" if verified is None else f"verified whole {verified:%F}"
    if now - since > _VERIFY_EVERY:
        remedy = "run `rebrain-node audit verify --against-sr` with a destination"
        return "warn", f"{newest}; {when}, due every {_VERIFY_EVERY.days} days: {remedy}"
    return "ok", f"{newest}; {when}"


def _keys(settings: Settings) -> Said:
    """Hold the key of the audit log against its public part; see who may read keys and secrets."""
    from rebrain_node.model.keys import (
        PRIVATE_FILE,
        PUBLIC_FILE,
        node_key,
        public_part,
        read_key_file,
    )
    from rebrain_node.trust import trusted_keys

    names = ", ".join(sorted(trusted_keys(settings).values()))
    trusted = f"bundles are taken from {names}; Ed25519 keys have no expiry date"
    if opened := [str(path) for path in _secret_files(settings) if _others_may_read(path)]:
        return (
            "warn",
            (
                f"every account of this machine may read {', '.join(opened)}; give it to the user "
                "of the node alone (`chmod 600`), and renew what may have been read"
            ),
        )
    folder = settings.storage.folder
    if not (folder / PUBLIC_FILE).exists():
        return "ok", f"the key of the audit log is made at the first start; {trusted}"
    own = read_key_file(folder / PUBLIC_FILE)
    if public_part(node_key(folder)) != own:
        return (
            "fail",
            (
                f"{PRIVATE_FILE} and {PUBLIC_FILE} in {folder} are not one pair: checkpoints would "
                "not be taken as the node's; restore both from one backup"
            ),
        )
    return "ok", f"the audit log is signed with the key {own[:12]}; {trusted}"


#: settings that name a file with a private key, password or token
_SECRETS: Final = frozenset({"key", "client_key", "secret_file", "password_file", "token_file"})


def _secret_files(settings: BaseModel) -> Iterator[Path]:
    """Yield the files with secrets of the settings, or of a section and those within it."""
    for name, value in settings:
        if isinstance(value, Path) and name in _SECRETS:
            yield value
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, BaseModel):
                yield from _secret_files(each)


def _others_may_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:  # the check of what uses it says so
        return False


def _decoders(settings: Settings) -> Said:
    from rebrain_node.app.compose import limit_decoding
    from rebrain_node.instance.codecs import decodable_transfer_syntaxes

    limit_decoding(settings)
    return "ok", f"{len(decodable_transfer_syntaxes())} transfer syntaxes passed their test"


def _bundle(settings: Settings) -> Said:
    from rebrain_node.app.compose import hold_against_history, open_bundle

    verified = open_bundle(settings)
    bundle, signer = verified.bundle, verified.signer
    hold_against_history(settings, bundle)
    who = "nobody" if signer is None else f"{signer.name}, key {signer.key[:12]}"
    found = f"{bundle.name} {bundle.version}, digest {bundle.digest[:12]}, signed by {who}"
    return ("warn", f"{found}; sign it (`rebrain-train sign`)") if signer is None else ("ok", found)


def _engine(settings: Settings) -> Said:
    from rebrain_node.app.compose import open_bundle, open_model

    model = open_model(settings, open_bundle(settings).bundle)
    if model.fallback is not None:
        return "warn", f"{model.engine.identity} computes instead: {model.fallback}"
    return "ok", f"{model.engine.identity} reproduces the golden output"


def _inbox(settings: Settings) -> Said:
    """Look at the lock of the folder, who may write into it, and files that were not finished."""
    from rebrain_node.app.presence import running_node

    folder = settings.storage.folder.absolute()
    if not folder.is_dir():
        parent = next(each for each in (folder, *folder.parents) if each.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            return "fail", f"this user cannot make {folder} within {parent}; correct path or owner"
        return "ok", f"{folder} is made at the first start"
    closed = [each.name for each in (folder, folder / "inbox", folder / "outbox")
              if each.is_dir() and not os.access(each, os.R_OK | os.W_OK | os.X_OK)]  # fmt: skip
    if closed:
        return "fail", f"this user may not write into {', '.join(closed)}; correct owner and mode"
    pid = running_node(settings.storage.own_folder)
    if pid is not None:
        return "ok", f"process {pid} has the lock of {folder}"
    unfinished = [path for path in folder.rglob("*.writing") if _has_bytes(path)]
    found = f"no node runs in {folder}, and its lock is free"
    if unfinished:
        return (
            "warn",
            (
                f"{found}; {len(unfinished)} files were not finished when it ended, and nobody was "
                "told that they were received: the next start removes them"
            ),
        )
    return "ok", found


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:  # it went meanwhile
        return False


def _receiver(settings: Settings) -> Said:
    """Say whether the receiver listens, or could, and whether anybody may send.

    Raises
    ------
    SettingsError
        It does not listen, or could not.
    """
    from rebrain_node.app.presence import running_node

    receiver = settings.receiver
    ports = [receiver.port, None if receiver.tls is None else receiver.tls.port]
    runs = running_node(settings.storage.own_folder) is not None
    for port in ports:
        if port is not None:
            (_require_listening if runs else _require_free)(receiver.address, port)
    where = f"{receiver.address}, {' and '.join(receiver.listening_words)}"
    found = f"listens at {where}" if runs else f"the node does not run; {where}: free for it"
    if not receiver.peers:
        return "warn", f"{found}; no peer may send: add [[receiver.peers]] to the settings"
    count = len(receiver.peers)
    found = f"{found}; {count} {'peer' if count == 1 else 'peers'} may send"
    if receiver.port is not None and not receiver.address.startswith(("127.", "::1")):
        return (
            "warn",
            (
                f"{found}; what comes on the plain port can be read and changed on its way: set "
                "receiver.tls (docs/how-to/tls.md), or keep it in a network of its own"
            ),
        )
    return "ok", found


def _require_listening(address: str, port: int) -> None:
    host = "127.0.0.1" if address in _EVERY else address
    try:
        socket.create_connection((host, port), timeout=_COMMAND_S).close()
    except OSError as error:
        raise SettingsError(
            f"the node runs, but nothing listens at {address}:{port} ({error.strerror}); see its "
            "log, and start it again"
        ) from error


_EVERY: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def _require_free(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        raise SettingsError(
            f"the receiver could not listen at {address}:{port} ({error.strerror}); stop the other "
            "program, or set another receiver.port or receiver.address"
        ) from error


def _destinations(settings: Settings) -> Said:
    names = settings.destination_names
    if not names:
        return (
            "warn",
            (
                "none is set: results are kept and sent to nobody; add [[destinations]] or "
                "[[dicomweb_destinations]] to the settings"
            ),
        )
    return "ok", ", ".join(names)


_CHECKS: Final[Mapping[str, Callable[[Settings], Said]]] = {
    "settings": _settings,
    "limits": _limits,
    "disk": _disk,
    "database": _database,
    "clock": _clock,
    "audit log": _audit_log,
    "keys": _keys,
    "inbox": _inbox,
    "receiver": _receiver,
    "decoders": _decoders,
    "bundle": _bundle,
    "engine": _engine,
    "destinations": _destinations,
}
