"""What `config check` finds beyond the single value: settings that contradict each other."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Final

from rebrain_node.app.compose import open_bundle, read_limits
from rebrain_node.errors import NoStateError, RebrainError, SettingsError
from rebrain_node.settings import (
    DestinationSettings,
    DicomRemote,
    Receiver,
    Settings,
    misspelt_variables,
)
from rebrain_node.trust import trusted_keys

_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost", "0.0.0.0"})  # noqa: S104 - compared, not bound


def settings_faults(settings: Settings) -> list[str]:
    """Return one sentence for each fault, with the settings that decide; empty if there is none."""
    faults = [
        *misspelt_variables(),
        *_same_destinations(settings),
        *_itself(settings),
        *_wrong_order(settings),
        *_missing_files(settings),
        *_folder(settings),
        *_tls(settings),
    ]
    for read in (_database, trusted_keys, read_limits, _bundle):
        faults += _fault_of(read, settings)
    return list(dict.fromkeys(faults))


def _same_destinations(settings: Settings) -> Iterator[str]:
    for one, other in combinations(settings.destinations, 2):
        if (one.ae_title, one.host, one.port) == (other.ae_title, other.host, other.port):
            yield (
                f"destinations {one.name} and {other.name} are the same system "
                f"({one.ae_title}@{one.host}:{one.port}): it would be sent everything twice; "
                "delete one"
            )
    for web, second in combinations(settings.dicomweb_destinations, 2):
        if web.url == second.url:
            yield (
                f"dicomweb_destinations {web.name} and {second.name} have the same url {web.url}: "
                "it would be sent everything twice; delete one"
            )


def _itself(settings: Settings) -> Iterator[str]:
    receiver = settings.receiver
    remotes: tuple[DicomRemote, ...] = (*settings.destinations, *settings.sources)
    own = _LOCAL | {receiver.address, socket.gethostname()}
    for remote in remotes:
        if remote.port in _ports(receiver) and remote.host in own:
            what = "destination" if isinstance(remote, DestinationSettings) else "source"
            yield (
                f"{what} {remote.name} is this node itself ({remote.host}:{remote.port} is where "
                "the receiver listens); give host and port of the PACS"
            )


def _ports(receiver: Receiver) -> frozenset[int | None]:
    return frozenset({receiver.port, None if receiver.tls is None else receiver.tls.port}) - {None}


def _wrong_order(settings: Settings) -> Iterator[str]:
    storage, receiver, completeness = settings.storage, settings.receiver, settings.completeness
    pairs: tuple[tuple[str, float, str, float, str], ...] = (
        ("storage.hard_mark_bytes", storage.hard_mark_bytes,
         "storage.soft_mark_bytes", storage.soft_mark_bytes,
         "the node would refuse to receive before it stops to synthesise"),
        ("completeness.quiet_period_s", completeness.quiet_period_s,
         "completeness.maximum_wait_s", completeness.maximum_wait_s,
         "every study would be taken as complete before it was quiet"),
        ("receiver.maximum_unassociated_per_address", receiver.maximum_unassociated_per_address,
         "receiver.maximum_unassociated", receiver.maximum_unassociated,
         "one address could take every place"),
    )  # fmt: skip
    for less, value, more, limit, why in pairs:
        if value > limit:
            yield f"{less} is {value:g}, more than {more} with {limit:g}: {why}; exchange them"
    if settings.health.port in _ports(receiver):
        both = settings.health.port
        yield f"health.port and a port of the receiver are both {both}; give each its own"


def _missing_files(settings: Settings) -> Iterator[str]:
    names = (
        "token_file", "certificate_authority", "client_certificate", "client_key", "secret_file",
        "password_file",
    )  # fmt: skip
    for remote in (
        *settings.dicomweb_destinations, *settings.dicomweb_sources, *settings.workflow_managers,
        *settings.audit_messages.collectors, *settings.notices.webhooks, *settings.notices.mails,
    ):  # fmt: skip
        for name in names:
            path: Path | None = getattr(remote, name, None)
            if path is not None and not path.is_file():
                who = getattr(remote, "name", "")
                yield f"{name} of {who}: there is no file {path}; make it, or correct the path"


def _tls(settings: Settings) -> Iterator[str]:
    """Make every context of TLS, and read what binds each sender to its certificates."""
    receiver = settings.receiver
    remotes = (*settings.destinations, *settings.sources, *settings.notifications)
    if receiver.tls is None and all(each.tls is None for each in remotes):
        return
    from rebrain_node.network.certificates import require_binding
    from rebrain_node.network.tls import receiver_context, remote_context

    reads: list[tuple[str, Callable[[], object]]] = []
    if receiver.tls is not None:
        reads.append(("receiver.tls", partial(receiver_context, receiver.tls)))
    reads += [
        (f"receiver.peers, {peer.ae_title}", partial(require_binding, each))
        for peer in receiver.peers
        for each in peer.certificates or ()
    ]
    reads += [
        (f"tls of {remote.name}", partial(remote_context, remote.tls))
        for remote in remotes
        if remote.tls is not None
    ]
    for where, read in reads:
        try:
            read()
        except SettingsError as error:
            yield f"{where}: {error}"


def _folder(settings: Settings) -> Iterator[str]:
    folder = settings.storage.folder.absolute()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir():
        yield (
            f"storage.folder {folder} cannot be made, because {there} is no folder; correct the "
            "path"
        )


def _database(settings: Settings) -> None:
    from rebrain_node.store.database import require_our_database

    folder = settings.storage.folder
    if settings.storage.database_url is not None:
        require_our_database(settings.storage.database_url)
    elif folder.is_dir():
        require_our_database(f"sqlite:///{folder.absolute() / 'node.sqlite'}")


def _bundle(settings: Settings) -> None:
    folder = settings.model.bundle
    if folder is not None and not folder.is_dir():
        raise SettingsError(
            f"model.bundle: there is no folder {folder}; correct the path, or leave it out for the "
            "demonstration bundle that ships"
        )
    open_bundle(settings)


def _fault_of(read: Callable[[Settings], object], settings: Settings) -> list[str]:
    try:
        read(settings)
    except NoStateError:
        return []  # the node makes it when it starts
    except (RebrainError, OSError) as error:
        return [str(error)]
    return []
