"""`doctor`: whether each system that the node calls answers, and takes what it will be asked for.

Nothing is sent but C-ECHO, searches for what nobody has, requests for associations, and the login
at a mail server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast

from rebrain_node.app.certificates import certificate_files, check_collector, shown_end
from rebrain_node.app.doctor import DoctorCheck, Said, check
from rebrain_node.app.messages import queue_words
from rebrain_node.app.tasks import check_manager, check_receiver, source_names, try_source
from rebrain_node.settings import Remote, WebhookSettings, WebRemote

if TYPE_CHECKING:
    from rebrain_node.app.certificates import CertificateFile
    from rebrain_node.settings import (
        AuditCollectorSettings,
        DestinationSettings,
        DicomRemote,
        MailSettings,
        NotificationSettings,
        Settings,
        WebDestinationSettings,
        WorkflowManagerSettings,
    )

#: the longest that `doctor` waits for a system at each step, s
LONGEST_WAIT_S: Final = 10.0
#: a certificate is to be valid for so long, days
_CERTIFICATE_DAYS: Final = 30
#: systems that are asked at the same time
_AT_ONCE: Final = 8
#: addresses that only this machine reaches
_LOOPBACK: Final = ("127.", "::1", "localhost")

Callee = TypeVar("Callee", bound=Remote | WebhookSettings)


def checks_of_remotes(settings: Settings) -> tuple[DoctorCheck, ...]:
    """Ask every system of the settings, several at a time, each within `LONGEST_WAIT_S` a step."""
    settings = _impatient(settings)
    runs = list(_runs(settings))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return tuple(pool.map(lambda named: check(*named), runs))


def _runs(settings: Settings) -> Iterator[tuple[str, Callable[[], Said]]]:
    for each in settings.destinations:
        yield f"destination {each.name}", partial(_destination, settings, each)
    for archive in settings.dicomweb_destinations:
        yield f"destination {archive.name}", partial(_web_destination, archive)
    for name in source_names(settings):
        yield f"source {name}", partial(_source, settings, name)
    for receiver in settings.notifications:
        yield (
            f"notification receiver {receiver.name}",
            partial(_notification_receiver, settings, receiver),
        )
    for manager in settings.workflow_managers:
        yield f"workflow manager {manager.name}", partial(_manager, settings, manager)
    for collector in settings.audit_messages.collectors:
        yield f"audit collector {collector.name}", partial(_collector, settings, collector)
    for hook in settings.notices.webhooks:
        yield f"webhook {hook.name}", partial(_webhook, hook)
    for mail in settings.notices.mails:
        yield f"mail server {mail.name}", partial(_mail, mail)
    yield from _certificates(settings)


def _certificates(settings: Settings) -> Iterator[tuple[str, Callable[[], Said]]]:
    web = (*settings.dicomweb_destinations, *settings.dicomweb_sources, *settings.workflow_managers)
    for remote in web:
        if remote.url.startswith("https:"):
            yield f"certificate of {remote.name}", partial(_certificate, remote)
    for system in (*settings.destinations, *settings.sources, *settings.notifications):
        if system.tls is not None:
            yield f"certificate of {system.name}", partial(_shown, system)
    for file in certificate_files(settings):
        yield file.setting.replace("_", " "), partial(_file, file)


def _impatient(settings: Settings) -> Settings:
    """Return the settings with no time limit of a remote system above `LONGEST_WAIT_S`."""

    def shorter(remotes: Iterable[Callee]) -> tuple[Callee, ...]:
        return tuple([cast(Callee, r.model_copy(update=_limit(r))) for r in remotes])

    return settings.model_copy(
        update={
            "destinations": shorter(settings.destinations),
            "dicomweb_destinations": shorter(settings.dicomweb_destinations),
            "notifications": shorter(settings.notifications),
            "workflow_managers": shorter(settings.workflow_managers),
            "sources": shorter(settings.sources),
            "dicomweb_sources": shorter(settings.dicomweb_sources),
            "audit_messages": settings.audit_messages.model_copy(
                update={"collectors": shorter(settings.audit_messages.collectors)}
            ),
            "notices": settings.notices.model_copy(
                update={
                    "webhooks": shorter(settings.notices.webhooks),
                    "mails": shorter(settings.notices.mails),
                }
            ),
        }
    )


def _limit(remote: Remote | WebhookSettings) -> dict[str, float]:
    return {"timeout_s": min(remote.timeout_s, LONGEST_WAIT_S)}


def _destination(settings: Settings, each: DestinationSettings) -> Said:
    """Propose what will be sent and asked, and say what is not accepted."""
    from rebrain_node.network.commitment import PUSH_MODEL
    from rebrain_node.network.services import asked_services, lacks, propose, sent_objects

    sent = sent_objects(settings)
    classes = [*(one.sop_class for one in sent), *asked_services(each)]
    answer = propose(each, settings.receiver.ae_title, classes)
    taken = [one.kind for one in sent if one.sop_class in answer.accepted]
    found = [f"answered C-ECHO in {1000 * answer.seconds:.0f} ms, takes {', '.join(taken) or '-'}"]
    missing = [*lacks(settings, each, answer.accepted)]
    if each.confirmation == "commitment":
        if PUSH_MODEL in answer.accepted:
            found.append("offers storage commitment, which the first result tries")
        missing += [("warn", text) for text in _ways_back(settings, each)]
    found += [text for _, text in missing]
    states = {state for state, _ in missing}
    return "fail" if "fail" in states else "warn" if states else "ok", "; ".join(found)


def _ways_back(settings: Settings, each: DestinationSettings) -> Iterator[str]:
    """Say why the answer to storage commitment could not come back on an association of its own.

    PS3.4 J.3.3: the report may come at any time later, from the AE title of the destination.
    """
    receiver = settings.receiver
    if each.ae_title not in {peer.ae_title for peer in receiver.peers}:
        yield (
            "its later answer to storage commitment would be turned away, because no "
            f"[[receiver.peers]] has the AE title {each.ae_title}; add it"
        )
    if receiver.address.startswith(_LOOPBACK) and not each.host.startswith(_LOOPBACK):
        yield (
            f"its later answer to storage commitment cannot reach receiver.address "
            f"{receiver.address}, which only this machine reaches; set an address of the network, "
            f"and enter {receiver.ae_title} with its port there: "
            f"{' or '.join(receiver.listening_words)}"
        )


def _web_destination(each: WebDestinationSettings) -> Said:
    from rebrain_node.network.dicomweb import WebDestination

    seconds = WebDestination(each).try_search()
    return "ok", f"answered QIDO-RS in {1000 * seconds:.0f} ms; STOW-RS is not tried"


def _source(settings: Settings, name: str) -> Said:
    return "ok", try_source(settings, name)


def _notification_receiver(settings: Settings, each: NotificationSettings) -> Said:
    check_receiver(settings, each)
    return "ok", "takes notifications"


def _manager(settings: Settings, each: WorkflowManagerSettings) -> Said:
    count = check_manager(settings, each)
    return "ok", f"answers a search: {count} workitems scheduled (one page)"


def _certificate(each: WebRemote) -> Said:
    from rebrain_node.network.dicomweb import certificate_end

    return _validity(certificate_end(each), "ask its administrator for a new one")


def _shown(each: DicomRemote) -> Said:
    return _validity(shown_end(each), "ask its administrator for a new one")


def _file(file: CertificateFile) -> Said:
    end = file.end()
    if end is None:
        return "ok", "holds several certificates; when each ends is not watched"
    what = "revocation list" if file.kind == "list" else "certificate"
    return _validity(end, f"put the new {what} into {file.path}")


def _collector(settings: Settings, each: AuditCollectorSettings) -> Said:
    end, waiting = check_collector(each), queue_words(settings, each)
    if end is None:
        return "ok", f"is reached without TLS; {waiting}"
    state, found = _validity(end, "ask its administrator for a new one")
    return state, f"certificate {found}; {waiting}"


def _webhook(each: WebhookSettings) -> Said:
    from rebrain_node.network.notices import WebhookChannel

    end = WebhookChannel(each).check()
    if end is None:
        return "ok", f"is reached without TLS; {_UNTRIED}"
    state, found = _validity(end, "ask its administrator for a new one")
    return state, f"certificate {found}; {_UNTRIED}"


def _mail(each: MailSettings) -> Said:
    from rebrain_node.network.notices import MailChannel

    end = MailChannel(each).check()
    login = "takes the login" if each.user is not None else "asks for no login"
    if end is None:
        return "ok", f"is reached without TLS, {login}; {_UNTRIED}"
    state, found = _validity(end, "ask its administrator for a new one")
    return state, f"certificate {found}; {login}; {_UNTRIED}"


_UNTRIED: Final = "nothing was sent: `rebrain-node notify test` does"


def _validity(end: datetime, remedy: str) -> Said:
    days = (end - datetime.now(UTC)).days
    found = f"valid to {end:%Y-%m-%d}, {days} days"
    if days < 0:
        return "fail", f"{found}: it has expired; {remedy}"
    if days < _CERTIFICATE_DAYS:
        return "warn", f"{found}, less than {_CERTIFICATE_DAYS}; {remedy}"
    return "ok", found
