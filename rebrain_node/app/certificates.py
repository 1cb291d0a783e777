"""When each certificate and revocation list of the settings ends, as a file and as it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from rebrain_node.errors import SettingsError

if TYPE_CHECKING:
    from rebrain_node.settings import (
        AuditCollectorSettings,
        DicomRemote,
        MailSettings,
        ReceiverTlsSettings,
        RemoteTlsSettings,
        Settings,
        WebhookSettings,
        WebRemote,
    )

#: which of several certificates of a file counts; `only`: none where there are several
Kind = Literal["first", "last", "only", "own", "list"]
_OF_TLS: Final[Mapping[str, Kind]] = {
    "certificate": "first", "certificate_authority": "first", "revocation_list": "list",
}  # fmt: skip


@dataclass(frozen=True)
class CertificateFile:
    """A file of the settings with certificates or a revocation list."""

    setting: str
    path: Path
    kind: Kind

    def end(self) -> datetime | None:
        """When it ends; None where it holds several and it is not known which is in use.

        Raises
        ------
        SettingsError
            The file cannot be read or holds something else.
        """
        from rebrain_node.network.certificates import ends_in, revocation_list_end

        if self.kind == "list":
            return revocation_list_end(self.path)
        ends = ends_in(self.path)
        match self.kind:
            case "first":
                return min(ends)
            case "last":
                return max(ends)
            case "own":
                return ends[0]
            case "only":
                return ends[0] if len(ends) == 1 else None


def certificate_ends(settings: Settings) -> dict[str, Callable[[], datetime | None]]:
    """Return what tells when each certificate ends: of each file, and as a server shows it."""
    ends = {each.setting: each.end for each in certificate_files(settings)}
    for each in settings.audit_messages.collectors:
        if each.protocol == "tls":
            ends[f"certificate of {each.name}"] = partial(check_collector, each)
    for remote in (*settings.destinations, *settings.sources, *settings.notifications):
        if remote.tls is not None:
            ends[f"certificate of {remote.name}"] = partial(shown_end, remote)
    return ends


def known_ends(settings: Settings) -> dict[str, datetime]:
    """When the certificates of each file end, by setting; without those that cannot be read."""
    ends = {}
    for each in certificate_files(settings):
        try:
            end = each.end()
        except SettingsError:
            continue
        if end is not None:
            ends[each.setting] = end
    return ends


def check_collector(collector: AuditCollectorSettings) -> datetime | None:
    """Connect to a collector and close; when its certificate ends, None without TLS.

    Raises
    ------
    DeliveryError
        It cannot be reached.
    SettingsError
        A file of the settings cannot be used.
    """
    from rebrain_node.network.syslog import SyslogCollector

    return SyslogCollector(collector).check()


def shown_end(remote: DicomRemote) -> datetime:
    """Connect to a DICOM system over TLS and close; when its certificate ends.

    Raises
    ------
    DeliveryError
        There is no TLS with it.
    """
    from rebrain_node.network.association import certificate_end

    return certificate_end(remote)


def certificate_files(settings: Settings) -> Iterator[CertificateFile]:
    """Yield every file of the settings whose end is watched."""
    yield from _of_dicom(settings)
    for peer in settings.receiver.peers:
        for number, binding in enumerate(peer.certificates or (), 1):
            if binding.startswith("/"):
                name = f"certificate {number} of peer {peer.ae_title}"
                yield CertificateFile(name, Path(binding), "last")
    remotes: tuple[WebRemote | AuditCollectorSettings | WebhookSettings | MailSettings, ...] = (
        *settings.dicomweb_destinations, *settings.dicomweb_sources, *settings.workflow_managers,
        *settings.audit_messages.collectors, *settings.notices.webhooks, *settings.notices.mails,
    )  # fmt: skip
    for remote in remotes:
        if remote.certificate_authority is not None:
            name = f"certificate_authority of {remote.name}"
            yield CertificateFile(name, remote.certificate_authority, "only")
    for each in settings.audit_messages.collectors:
        if each.client_certificate is not None:
            name = f"client_certificate of {each.name}"
            yield CertificateFile(name, each.client_certificate, "own")


def _of_dicom(settings: Settings) -> Iterator[CertificateFile]:
    if settings.receiver.tls is not None:
        yield from _of_tls("receiver.tls", settings.receiver.tls)
    for system in (*settings.destinations, *settings.sources, *settings.notifications):
        if system.tls is not None:
            yield from _of_tls(system.name, system.tls)


def _of_tls(owner: str, tls: ReceiverTlsSettings | RemoteTlsSettings) -> Iterator[CertificateFile]:
    for name, path in tls.files.items():
        if name in _OF_TLS:
            label = "tls.certificate" if name == "certificate" and owner != "receiver.tls" else name
            yield CertificateFile(f"{label} of {owner}", path, _OF_TLS[name])
