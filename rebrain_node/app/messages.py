"""Who is told what of the audit log: collectors of audit messages, channels of notices."""

from __future__ import annotations

import getpass
import socket
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from rebrain_node.app.compose import audit_check, find_state
from rebrain_node.domain.audit import Event
from rebrain_node.domain.notice import Notice, NoticeItem
from rebrain_node.errors import (
    NoStateError,
    RebrainError,
    SettingsError,
    StateError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from rebrain_node.app.compose import State
    from rebrain_node.domain.audit import ChainVerdict
    from rebrain_node.domain.audit_message import AuditSource
    from rebrain_node.ports import JsonValue, NoticeChannel
    from rebrain_node.settings import (
        AuditCollectorSettings,
        Settings,
    )
    from rebrain_node.worker.audit_messages import AuditMessageLoop
    from rebrain_node.worker.notices import NoticeLoop
    from rebrain_node.worker.self_check import SelfCheckLoop


def begin_queue(settings: Settings, state: State) -> None:
    """Let each new collector and channel be told what happens from now on, and forget old ones.

    Raises
    ------
    StoreUnavailableError
        The database cannot be used now.
    """
    from rebrain_node.store.audit_queue import message_reader, notice_reader

    readers = [message_reader(each.name) for each in settings.audit_messages.collectors]
    readers += [notice_reader(each.name) for each in settings.notices.webhooks]
    readers += [notice_reader(each.name) for each in settings.notices.mails]
    state.audit_queue.begin(readers)


def audit_message_loops(settings: Settings, state: State) -> list[AuditMessageLoop]:
    """Make the loop of each collector."""
    if not settings.audit_messages.collectors:
        return []
    from rebrain_node.app.patient import patient_of_study
    from rebrain_node.network.syslog import SyslogCollector
    from rebrain_node.worker.audit_messages import AuditMessageLoop

    include = settings.audit_messages.patient_id == "include"
    return [
        AuditMessageLoop(
            queue=state.audit_queue,
            deliveries=state.deliveries,
            collector=SyslogCollector(each),
            source=audit_source(settings),
            patient_of=partial(patient_of_study, state) if include else None,
        )
        for each in settings.audit_messages.collectors
    ]


def audit_source(settings: Settings) -> AuditSource:
    """Return how this node and its destinations are called in audit messages."""
    from rebrain_node.domain.audit_message import AuditSource, RemotePeer

    remotes = {each.name: RemotePeer(each.ae_title, each.host) for each in settings.destinations}
    for web in settings.dicomweb_destinations:
        remotes[web.name] = RemotePeer(None, urlsplit(web.url).hostname or web.url)
    return AuditSource(
        ae_title=settings.receiver.ae_title,
        host=socket.gethostname(),
        site=settings.audit_messages.site,
        remotes=remotes,
    )


def notice_channels(settings: Settings) -> tuple[NoticeChannel, ...]:
    """Make every channel of notices."""
    notices = settings.notices
    if not notices.webhooks and not notices.mails:
        return ()
    from rebrain_node.network.notices import MailChannel, WebhookChannel

    return (*map(WebhookChannel, notices.webhooks), *map(MailChannel, notices.mails))


def notice_loops(settings: Settings, state: State) -> list[NoticeLoop]:
    """Make the loop of each channel."""
    channels = notice_channels(settings)
    if not channels:
        return []
    from rebrain_node.worker.notices import NoticeLoop

    return [
        NoticeLoop(
            queue=state.audit_queue,
            audit=state.audit,
            channel=channel,
            node=settings.receiver.ae_title,
            pause_s=60.0 * settings.notices.pause_minutes,
        )
        for channel in channels
    ]


def self_check_loop(settings: Settings, state: State) -> SelfCheckLoop:
    """Make the loop that looks at disk, certificates and audit log."""
    from rebrain_node.app.certificates import certificate_ends
    from rebrain_node.worker.self_check import SelfCheckLoop

    return SelfCheckLoop(
        audit=state.audit,
        folder=state.folder,
        soft_mark_bytes=settings.storage.soft_mark_bytes,
        verify=lambda: audit_check(state).verify(),
        certificates=certificate_ends(settings),
        certificate_days=settings.notices.certificate_days,
    )


def record_broken(state: State, verdict: ChainVerdict) -> None:
    """Record that the audit log is not as it was written, where the database takes it."""
    from rebrain_node.worker.self_check import broken_details

    with suppress(StoreUnavailableError, StateError):
        state.audit.record(Event.AUDIT_BROKEN, *broken_details(verdict))


def queue_words(settings: Settings, collector: AuditCollectorSettings) -> str:
    """Say how many events a collector has still to be told."""
    from rebrain_node.store.audit_queue import message_reader

    try:
        with find_state(settings) as state:
            told = {each.reader: each.rows for each in state.audit_queue.states()}
    except NoStateError:
        return "nothing to be told yet"
    return f"{told.get(message_reader(collector.name), 0)} events to be told"


class TestAnswer(NamedTuple):
    """What became of a test notice."""

    taken: bool
    reason: str | None  #: why not by everybody


def send_test_notices(
    settings: Settings, state: State, name: str | None = None
) -> dict[str, TestAnswer]:
    """Send a test to every channel, or to one; what became of it, by name.

    Raises
    ------
    SettingsError
        There is no channel, or none of that name.
    """
    channels = notice_channels(settings)
    chosen = [each for each in channels if name is None or each.name == name]
    if not chosen:
        known = ", ".join(each.name for each in channels) or "none"
        raise SettingsError(
            f"no webhook and no mail server of [notices] is called {name!r} (there are: {known}); "
            "add one to the settings"
            if name is not None
            else "nobody is told: add [[notices.webhooks]] or [[notices.mails]] to the settings"
        )
    operator, test = getpass.getuser(), _test_notice(settings)
    answers: dict[str, TestAnswer] = {}
    for channel in chosen:
        details: dict[str, JsonValue] = {"events": 1, "first": 0, "last": 0, "operator": operator}
        try:
            refused = channel.send(test)
        except RebrainError as error:
            answers[channel.name] = TestAnswer(taken=False, reason=str(error))
            state.audit.record(Event.NOTICE_FAILED, channel.name, details | {"reason": str(error)})
        else:
            words = f"{refused} of the recipients were refused; correct recipients"
            answers[channel.name] = TestAnswer(taken=True, reason=words if refused else None)
            sent: dict[str, JsonValue] = {"listed": 1, "recipients_refused": refused}
            state.audit.record(Event.NOTICE_SENT, channel.name, details | sent)
    return answers


def _test_notice(settings: Settings) -> Notice:
    item = NoticeItem(
        event="test", subject="notices", count=1, last=datetime.now(UTC), sentence="this is a test"
    )
    return Notice(node=settings.receiver.ae_title, events=1, items=(item,), first=0, last=0)
