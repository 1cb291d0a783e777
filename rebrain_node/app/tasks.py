"""What a command does with the parts: process a folder, try a peer, send by hand, recall."""

from __future__ import annotations

import getpass
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rebrain_node.app.compose import (
    configure,
    limit_decoding,
    open_bundle,
    open_model,
)
from rebrain_node.domain.delivery import ACCEPTED_STATES
from rebrain_node.errors import (
    DeliveryError,
    SettingsError,
    StateError,
)
from rebrain_node.settings import (
    DestinationSettings,
    DicomRemote,
    NotificationSettings,
    Settings,
    WorkflowManagerSettings,
)

if TYPE_CHECKING:
    from rebrain_node.app.compose import State
    from rebrain_node.domain.delivery import RecalledSet
    from rebrain_node.engine.loaded import LoadedModel
    from rebrain_node.folder import Folder, Progress, SeriesResult
    from rebrain_node.network.sender import SentFile
    from rebrain_node.ports import Source
    from rebrain_node.steps.write.rejection import RejectionReason


@dataclass(frozen=True, kw_only=True)
class FolderRun:
    """What `process` did with a folder."""

    folder: Folder
    results: tuple[SeriesResult, ...]
    outputs: tuple[Path, ...]
    manifests: tuple[Path, ...]
    seconds: float
    engine: str | None  #: None if no series got that far
    bundle_digest: str


def process_folder(settings: Settings, study: Path, out: Path, progress: Progress) -> FolderRun:
    """Judge the studies of a folder and write what is synthesised into another.

    Raises
    ------
    RebrainError
        Settings, bundle or engine are not fit, or a file would be overwritten.
    OSError
        A folder cannot be read or written.
    """
    from rebrain_node.folder import process_studies, read_folder, write_out
    from rebrain_node.model.keys import PRIVATE_FILE, node_key
    from rebrain_node.steps.sign import NodeSigner

    start = time.monotonic()
    limit_decoding(settings)
    bundle = open_bundle(settings).bundle
    configuration = configure(settings, bundle)
    identities: list[str] = []

    @cache
    def model() -> LoadedModel:
        loaded = open_model(settings, bundle)
        identities.append(loaded.engine.identity)
        return loaded

    state = settings.storage.folder
    key = node_key(state) if (state / PRIVATE_FILE).exists() else None
    signer = NodeSigner(ae_title=settings.receiver.ae_title, key=key)
    folder = read_folder(study, progress)
    results = tuple(process_studies(folder, configuration, model, signer, progress))
    receipts = [result.receipt for result in results if result.receipt is not None]
    written = [write_out(each.derived, each.manifest, out) for each in receipts]
    return FolderRun(
        folder=folder,
        results=results,
        outputs=tuple(path for objects, _ in written for path in objects),
        manifests=tuple(manifest for _, manifest in written),
        seconds=time.monotonic() - start,
        engine=identities[0] if identities else None,
        bundle_digest=bundle.digest,
    )


def find_destination(settings: Settings, name: str) -> DestinationSettings:
    """Find a destination by its name.

    Raises
    ------
    SettingsError
        There is none of that name.
    """
    for destination in settings.destinations:
        if destination.name == name:
            return destination
    names = ", ".join(each.name for each in settings.destinations) or "none"
    raise SettingsError(f"there is no destination {name!r}; the settings name {names}")


def check_receiver(settings: Settings, each: NotificationSettings) -> None:
    """Ask whether a receiver takes notifications; nothing is sent.

    Raises
    ------
    DeliveryError
        It cannot be reached, or takes none.
    """
    from rebrain_node.network.notification import AvailabilityReceiver

    AvailabilityReceiver(each, settings.receiver.ae_title).check()


def check_manager(settings: Settings, each: WorkflowManagerSettings) -> int:
    """Search a workflow manager for scheduled workitems; nothing is claimed.

    Returns
    -------
    int
        How many there are on the first page of the answer.

    Raises
    ------
    DeliveryError
        It cannot be reached, or does not answer with workitems.
    """
    from rebrain_node.network.workitems import WorkflowManager

    return WorkflowManager(each, settings.receiver.ae_title, {}).check()


def source_names(settings: Settings) -> tuple[str, ...]:
    """Name what is configured as a source, and each destination that is asked as one."""
    named = [each.name for each in (*settings.sources, *settings.dicomweb_sources)]
    asked = [peer.query for peer in settings.receiver.peers if peer.query is not None]
    return tuple(dict.fromkeys([*named, *asked]))


def open_source(settings: Settings, name: str) -> Source:
    """Make what asks one source."""
    remote = settings.remotes[name]
    if isinstance(remote, DicomRemote):
        from rebrain_node.network.query import DicomSource

        return DicomSource(remote, settings.receiver.ae_title)
    from rebrain_node.network.dicomweb import WebSource

    return WebSource(remote)


def try_source(settings: Settings, name: str) -> str:
    """Verify the connection with a source, and ask it for a series that nobody has.

    Returns
    -------
    str
        What it answered and how long that took.

    Raises
    ------
    DeliveryError
        It does not answer, or with instances of another series.
    """
    remote, answered = settings.remotes[name], ""
    query, remedy = "QIDO-RS", "check url and token_file, and that queries are allowed there"
    if isinstance(remote, DicomRemote):
        from rebrain_node.network.sender import echo

        ae_title = settings.receiver.ae_title
        answered = f"C-ECHO in {1000 * echo(remote, ae_title):.0f} ms and "
        query, remedy = "C-FIND", f"allow queries of AE title {ae_title} there"
    study, series = (f"2.25.{uuid.uuid4().int}" for _ in range(2))
    begun = time.monotonic()
    try:
        count = open_source(settings, name).ask(study, {series: 0})[series].count
    except DeliveryError as error:
        raise DeliveryError(
            f"{error}; {remedy}: without an answer no series whose sender has query = {name!r} is "
            "verified as complete"
        ) from error
    if count:
        raise DeliveryError(
            f"source {name} answered {query} with {count} instances of a series that nobody has: "
            "it ignores Series Instance UID; name another source as query of its senders"
        )
    return f"answered {answered}{query} in {1000 * (time.monotonic() - begun):.0f} ms"


def send_files(
    settings: Settings, name: str, paths: Sequence[Path], progress: Callable[[SentFile], None]
) -> tuple[SentFile, ...]:
    """Send files to a destination by hand.

    Raises
    ------
    SettingsError
        There is no destination of that name.
    DeliveryError
        There is no association: nothing was sent.
    StateError
        Shadow mode keeps what would go to this destination.
    """
    from rebrain_node.network.sender import send_files

    if name in settings.kept_names:
        raise StateError(
            f"shadow mode is active (shadow.active): nothing is sent to {name}, by hand neither; "
            "name the test archive, or end shadow mode before"
        )
    return send_files(find_destination(settings, name), settings.receiver.ae_title, paths, progress)


@dataclass(frozen=True, kw_only=True)
class IssuedRecall:
    """What a recall did, by set."""

    notes: dict[int, int]  #: number of destinations that get a rejection note
    cancelled: dict[int, int]  #: number of objects that no destination gets any more


def issue_recall(
    state: State, recalled: Sequence[RecalledSet], reason: RejectionReason, comment: str
) -> IssuedRecall:
    """Have a rejection note sent for each recalled set.

    What a destination has not got yet is cancelled. Rejected are the objects that a destination
    holds; a set that none holds gets no note.

    Raises
    ------
    StateError
        The bytes of a set were deleted, so that no note can be written.
    """
    from rebrain_node.steps.write.rejection import write_rejection

    issued = IssuedRecall(notes={}, cancelled={})
    operator = getpass.getuser()
    for each in recalled:
        issued.cancelled[each.set_id] = state.deliveries.cancel_recalled(
            each.set_id, f"recalled: {comment}", operator
        )
        held = [
            one
            for one in state.recall.refreshed(each).objects
            if not one.is_note and ACCEPTED_STATES & set(one.destinations.values())
        ]
        if held:
            note = write_rejection(
                held, state.outbox.kept_of(each.set_id), reason, comment, datetime.now(UTC)
            )
            issued.notes[each.set_id] = state.outbox.add_note(each.set_id, note, comment, operator)
    return issued
