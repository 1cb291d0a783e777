"""`doctor`: check the installation and print the entry for the PACS."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer

from rebrain_node.cli.terminal import AsJson, Config, console, print_json, print_table
from rebrain_node.domain.text import utc
from rebrain_node.errors import RebrainError

if TYPE_CHECKING:
    from rebrain_node.settings import (
        AuditCollectorSettings,
        NotificationSettings,
        Settings,
        WorkflowManagerSettings,
    )


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked."""

    what: str
    fit: bool
    found: str


def doctor(config: Config = None, as_json: AsJson = False) -> None:
    """Check the installation and print the entry for the PACS.

    Checks settings, limits, disk, database, decoders, bundle and its signer, engine,
    destinations, sources, who is notified of results, workflow managers, and collectors of audit
    messages. Exit code 1 if a check fails.
    """
    from rebrain_node.app.tasks import source_names
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    checks = [_check(what, run, settings) for what, run in _CHECKS.items()]
    checks += [_check_destination(settings, each.name) for each in settings.destinations]
    checks += [_check_source(settings, name) for name in source_names(settings)]
    checks += [_check_receiver(settings, each) for each in settings.notifications]
    checks += [_check_manager(settings, each) for each in settings.workflow_managers]
    checks += [_check_collector(settings, each) for each in settings.audit_messages.collectors]
    entries = _entries(settings)
    if as_json:
        print_json({"checks": [asdict(check) for check in checks], "enter_at_the_pacs": entries})
    else:
        rows = [(check.what, "ok" if check.fit else "FAILED", check.found) for check in checks]
        print_table("Checks", ("check", "result", "details"), rows)
        print_table("Enter at the PACS", ("field", "value"), list(entries.items()))
        if not settings.receiver.peers:
            console().print("no peer may send: add [[receiver.peers]] to the settings")
    if not all(check.fit for check in checks):
        raise typer.Exit(1)


def _settings(settings: Settings) -> str:
    from rebrain_node.app.settings_check import settings_faults
    from rebrain_node.errors import SettingsError

    if faults := settings_faults(settings):
        raise SettingsError("; ".join(faults))
    return "no setting contradicts another"


def _limits(settings: Settings) -> str:
    from rebrain_node.app.compose import read_limits

    return f"digest {read_limits(settings).digest[:12]}"


def _disk(settings: Settings) -> str:
    from rebrain_node.errors import SettingsError

    folder = settings.storage.folder.absolute()
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    if free < settings.storage.soft_mark_bytes:
        raise SettingsError(
            f"{free / 1e9:.1f} GB free in {settings.storage.folder}, the soft mark is "
            f"{settings.storage.soft_mark_bytes / 1e9:.1f} GB; make room or lower "
            "storage.soft_mark_bytes"
        )
    return f"{free / 1e9:.1f} GB free in {settings.storage.folder}"


def _database(settings: Settings) -> str:
    from rebrain_node.app.compose import find_state, has_bytes
    from rebrain_node.errors import NoStateError

    try:
        with find_state(settings) as state:
            sequence, _ = state.audit.head()
    except NoStateError as error:
        if has_bytes(settings.storage.folder):
            raise
        return str(error)  # before the first start of the node this is as it should be
    return f"{sequence} events on the audit log"


def _decoders(settings: Settings) -> str:
    from rebrain_node.app.compose import limit_decoding
    from rebrain_node.instance.codecs import decodable_transfer_syntaxes

    limit_decoding(settings)
    return f"{len(decodable_transfer_syntaxes())} transfer syntaxes passed their test"


def _bundle(settings: Settings) -> str:
    from rebrain_node.app.compose import hold_against_history, open_bundle

    verified = open_bundle(settings)
    bundle, signer = verified.bundle, verified.signer
    hold_against_history(settings, bundle)
    who = "nobody" if signer is None else f"{signer.name}, key {signer.key[:12]}"
    return f"{bundle.name} {bundle.version}, digest {bundle.digest[:12]}, signed by {who}"


def _engine(settings: Settings) -> str:
    from rebrain_node.app.compose import open_bundle, open_model

    model = open_model(settings, open_bundle(settings).bundle)
    return f"{model.engine.identity} reproduces the golden output"


_CHECKS: dict[str, Callable[[Settings], str]] = {
    "settings": _settings,
    "limits": _limits,
    "disk": _disk,
    "database": _database,
    "decoders": _decoders,
    "bundle": _bundle,
    "engine": _engine,
}


def _check(what: str, run: Callable[[Settings], str], settings: Settings) -> Check:
    try:
        return Check(what=what, fit=True, found=run(settings))
    except (RebrainError, OSError) as error:
        return Check(what=what, fit=False, found=str(error))


def _check_destination(settings: Settings, name: str) -> Check:
    from rebrain_node.app.tasks import echo

    def run(settings: Settings) -> str:
        return f"answered C-ECHO in {1000 * echo(settings, name):.0f} ms"

    return _check(f"destination {name}", run, settings)


def _check_receiver(settings: Settings, each: NotificationSettings) -> Check:
    from rebrain_node.app.tasks import check_receiver

    def run(settings: Settings) -> str:
        check_receiver(settings, each)
        return "takes notifications"

    return _check(f"notification receiver {each.name}", run, settings)


def _check_source(settings: Settings, name: str) -> Check:
    from rebrain_node.app.tasks import try_source

    return _check(f"source {name}", lambda settings: try_source(settings, name), settings)


def _check_manager(settings: Settings, each: WorkflowManagerSettings) -> Check:
    from rebrain_node.app.tasks import check_manager

    def run(settings: Settings) -> str:
        return f"answers a search: {check_manager(settings, each)} workitems scheduled (one page)"

    return _check(f"workflow manager {each.name}", run, settings)


def _check_collector(settings: Settings, each: AuditCollectorSettings) -> Check:
    from rebrain_node.app.messages import check_collector, queue_words

    def run(settings: Settings) -> str:
        end = check_collector(each)
        words = "is reached without TLS" if end is None else f"its certificate ends {utc(end)}"
        return f"{words}; {queue_words(settings, each)}"

    return _check(f"audit collector {each.name}", run, settings)


def _entries(settings: Settings) -> dict[str, object]:
    receiver = settings.receiver
    return {
        "AE title": receiver.ae_title,
        "host": "this machine" if receiver.address == "0.0.0.0" else receiver.address,  # noqa: S104 - compared, not bound
        "port": receiver.port,
        "services": "Verification, Storage of CT, Enhanced CT",
        "TLS": "no",
    }
