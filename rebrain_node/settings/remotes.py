"""Systems that the node calls to deliver results or to ask about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from rebrain_node.settings.tls import RemoteTlsSettings
from rebrain_node.settings.values import (
    LOOPBACK,
    AETitle,
    Host,
    Port,
    RemoteName,
    Section,
    WebUrl,
    text_of,
)


class Remote(Section):
    """What every kind of remote system has."""

    role: ClassVar[str] = "source"  #: what messages call it

    name: RemoteName = Field(description="name used in the outbox and the audit log")
    timeout_s: float = Field(
        default=30.0, gt=0, le=600, description="seconds to wait for it at each step"
    )


class DicomRemote(Remote):
    """One DICOM application entity that the node calls."""

    ae_title: AETitle = Field(description="its called AE title")
    host: Host = Field(description="host name or address")
    port: Port = Field(default=104, description="TCP port")
    tls: RemoteTlsSettings | None = Field(
        default=None, description="TLS ([TLS](how-to/tls.md)); none means plain DICOM"
    )


class WebRemote(Remote):
    """One DICOMweb origin server that the node calls."""

    url: Annotated[
        WebUrl,
        text_of(
            r"https?://\S*[^\s/]",
            "must be a URL that begins with https:// (or http:// on this machine) and ends "
            "without a slash",
        ),
    ] = Field(description="base URL of the service, without a slash at its end")
    token_file: Path | None = Field(
        default=None, description="file with the bearer token; read before each request"
    )
    certificate_authority: Path | None = Field(
        default=None, description="file with the certificates to trust instead of the usual ones"
    )

    @model_validator(mode="after")
    def _keeps_the_token_secret(self) -> Self:
        host = urlsplit(self.url).hostname or ""
        if self.url.startswith("http:") and host not in LOOPBACK:
            raise ValueError(
                "url must begin with https: patient data never travel over plain HTTP; only a "
                "server on this machine may be reached by http"
            )
        return self


class _Destination(Remote):
    """What every kind of destination has."""

    role: ClassVar[str] = "destination"

    companions: Literal["lenient", "strict"] = Field(
        default="lenient",
        description=(
            "where the destination does not accept a kind of companion object (parametric map, "
            "segmentation, report, ...): `lenient` leaves it out, `strict` sends nothing"
        ),
    )
    deadline_h: float | None = Field(
        default=None,
        gt=0,
        description=(
            "hours after which what is not delivered is given up and shown as refused; without it "
            "the node tries until it succeeds"
        ),
    )


class DestinationSettings(_Destination, DicomRemote):
    """One DICOM storage SCP that gets the results."""

    confirmation: Literal["none", "query", "commitment"] = Field(
        default="query",
        description=(
            "how the destination is asked whether it holds what it has accepted: `none`, only "
            "where an answer is in doubt; `query`, always (C-FIND, and C-GET of a sample); "
            "`commitment`, by storage commitment"
        ),
    )


class WebDestinationSettings(_Destination, WebRemote):
    """One DICOMweb origin server that gets the results."""

    confirmation: Literal["none", "query"] = Field(
        default="query",
        description=(
            "how the server is asked whether it holds what it has accepted: `none`, only where an "
            "answer is in doubt; `query`, always (QIDO-RS, and WADO-RS of a sample)"
        ),
    )


class NotificationSettings(DicomRemote):
    """One system that is told which results a destination holds (Instance Availability)."""

    role: ClassVar[str] = "notification receiver"

    destinations: tuple[str, ...] = Field(
        default=(),
        description=(
            "names of the `[[destinations]]` of whose confirmed sets it is notified; empty means "
            "every one whose `confirmation` is not `none`"
        ),
    )


class WorkflowManagerSettings(WebRemote):
    """One workflow manager whose workitems the node performs (UPS-RS)."""

    role: ClassVar[str] = "workflow manager"

    workitem_code: str = Field(
        min_length=1,
        max_length=16,
        description=(
            "code value of the workitems that the node performs (Scheduled Workitem Code Sequence)"
        ),
    )
    station: str | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description=(
            "code value of the station (Scheduled Station Name Code Sequence) whose workitems the "
            "node performs; none means every station"
        ),
    )
    transaction: Literal["Transaction-uid", "transaction-uid", "body"] = Field(
        default="Transaction-uid",
        description=(
            "how an update carries the Transaction UID: as the query parameter `Transaction-uid` "
            "(PS3.18 from 2025e on; dcm4chee from 5.35.1 on) or `transaction-uid` (PS3.18 2019b to "
            "2025d), or in the `body` (dcm4chee to 5.35.0)"
        ),
    )


class TlsRemote(Remote):
    """What every system has that the node calls over TLS and that is no DICOM system."""

    host: Host = Field(description="host name or address, as its certificate names it")
    certificate_authority: Path | None = Field(
        default=None, description="file with the certificates to trust instead of the usual ones"
    )

    @property
    def is_on_this_machine(self) -> bool:
        """Whether nothing leaves the machine on the way to it."""
        return self.host in LOOPBACK
