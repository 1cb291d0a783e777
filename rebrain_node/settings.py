"""What the site decides: a TOML file, overridden by ``REBRAIN_*`` environment variables.

Three kinds of configuration never mix: settings (this file), limits (clinical lead,
conf/limits.toml) and the recipe (travels in the bundle).
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic import field_validator as validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as EnvironmentFault

from rebrain_node.domain.stop_rules import JUDGED_RULES, JudgedRule
from rebrain_node.errors import SettingsError
from rebrain_node.validation import faults_of, nearest

_PREFIX: Final = "REBRAIN_"


def _text(pattern: str, words: str) -> AfterValidator:
    """Require text of a pattern, and say what is required in words."""

    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(words)
        return value

    return AfterValidator(check)


#: AE title: 1 to 16 characters of the default repertoire, no backslash (PS3.5 6.2, VR AE)
AETitle = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    _text(
        r"[\x20-\x5b\x5d-\x7e]{1,16}",
        "must be an AE title: 1 to 16 letters, digits, spaces and signs, no backslash",
    ),
]
Port = Annotated[int, Field(ge=1, le=65535)]
RemoteName = Annotated[
    str,
    _text(
        r"[a-z0-9][a-z0-9_-]{0,31}",
        "must be 1 to 32 small letters, digits, - and _, a letter or digit first",
    ),
]
MailAddress = Annotated[
    str, _text(r"[!-?A-~]+@[!-?A-~]+", "must be a mail address, e.g. it@example.org")
]
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Peer(_Part):
    """One sender that may associate."""

    ae_title: AETitle = Field(description="calling AE title of a sender")
    addresses: tuple[str, ...] = Field(
        default=("127.0.0.1/32",), description="networks that sender may call from, CIDR"
    )
    query: str | None = Field(
        default=None,
        description=(
            "name of the source or destination that holds what this sender sends: it is asked how "
            "many instances a series has ([receiving](receiving.md)); none means that nobody is "
            "asked"
        ),
    )

    @validator("addresses")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_network(network) for network in value)


def _network(text: str) -> str:
    """Return a network as CIDR.

    Raises
    ------
    ValueError
        It is none; the message names what it may have meant.
    """
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        words = f"{text!r} is no address (10.0.0.7) and no network (10.0.0.0/24)"
    try:
        meant = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(words) from None
    raise ValueError(f"{words}; write {meant.ip} for one machine or {meant.network} for all")


class _Remote(_Part):
    """What every kind of remote system has."""

    role: ClassVar[str] = "source"  #: what messages call it

    name: RemoteName = Field(description="name used in the outbox and the audit log")
    timeout_s: float = Field(
        default=30.0, gt=0, le=600, description="seconds to wait for it at each step"
    )


class DicomRemote(_Remote):
    """One DICOM application entity that the node calls."""

    ae_title: AETitle = Field(description="its called AE title")
    host: str = Field(description="host name or address")
    port: Port = Field(default=104, description="TCP port")


class WebRemote(_Remote):
    """One DICOMweb origin server that the node calls."""

    url: Annotated[
        str,
        _text(
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
        if self.url.startswith("http:") and host not in _LOOPBACK:
            raise ValueError(
                "url must begin with https: patient data never travel over plain HTTP; only a "
                "server on this machine may be reached by http"
            )
        return self


class _Destination(_Remote):
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


class _TlsRemote(_Remote):
    """What every system has that the node calls over TLS and that is no DICOM system."""

    host: str = Field(min_length=1, description="host name or address, as its certificate names it")
    certificate_authority: Path | None = Field(
        default=None, description="file with the certificates to trust instead of the usual ones"
    )

    @property
    def is_on_this_machine(self) -> bool:
        """Whether nothing leaves the machine on the way to it."""
        return self.host in _LOOPBACK


class AuditCollectorSettings(_TlsRemote):
    """One system that collects DICOM audit messages (syslog)."""

    role: ClassVar[str] = "audit collector"

    port: Port = Field(default=6514, description="TCP port")
    protocol: Literal["tls", "tcp"] = Field(
        default="tls",
        description="`tls` (RFC 5425), or `tcp` without encryption, on this machine only",
    )
    client_certificate: Path | None = Field(
        default=None, description="file with the certificate of this node (PEM), where it is asked"
    )
    client_key: Path | None = Field(
        default=None, description="file with its key; none means the file of the certificate"
    )

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if self.protocol == "tcp" and not self.is_on_this_machine:
            raise ValueError(
                f"protocol of {self.name} must be tls: audit messages are not sent unencrypted to "
                f"{self.host}; tcp is for a collector on this machine (127.0.0.1)"
            )
        return self


class AuditMessageSettings(_Part):
    """DICOM audit messages made from the audit log (PS3.15 A.5)."""

    site: str | None = Field(
        default=None, min_length=1, max_length=64, description="Audit Enterprise Site ID"
    )
    patient_id: Literal["withhold", "include"] = Field(
        default="withhold",
        description=(
            "whether messages hold the Patient ID of a study, read from its stored instances; "
            "a name never stands in one"
        ),
    )
    collectors: tuple[AuditCollectorSettings, ...] = Field(
        default=(),
        description=(
            "systems that collect the messages ([audit messages](audit-messages.md)); a new one is "
            "sent what happens from the next start of the node on"
        ),
    )


class WebhookSettings(_Part):
    """One URL to which notices are posted."""

    name: RemoteName = Field(description="name used in the audit log")
    url: Annotated[
        str,
        _text(
            r"https?://\S+",
            "must be a URL that begins with https:// (or http:// on this machine)",
        ),
    ] = Field(description="where notices are posted as JSON; redirections are not followed")
    secret_file: Path = Field(
        description=(
            "file with the secret of the signature (HMAC-SHA256); read before each request"
        )
    )
    certificate_authority: Path | None = Field(
        default=None, description="file with the certificates to trust instead of the usual ones"
    )
    timeout_s: float = Field(default=30.0, gt=0, le=600, description="seconds to wait for it")

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if self.url.startswith("http:") and urlsplit(self.url).hostname not in _LOOPBACK:
            raise ValueError(
                f"url of {self.name} must begin with https: only a server on this machine may be "
                "reached by http"
            )
        return self


class MailSettings(_TlsRemote):
    """One mail server and who gets notices through it."""

    role: ClassVar[str] = "mail server"

    port: Port = Field(default=587, description="TCP port of submission")
    encryption: Literal["starttls", "none"] = Field(
        default="starttls", description="`starttls`, or `none` on this machine only"
    )
    sender: MailAddress = Field(description="address that mails come from")
    recipients: tuple[MailAddress, ...] = Field(min_length=1, description="addresses that get them")
    user: str | None = Field(default=None, description="user name, where the server asks for one")
    password_file: Path | None = Field(
        default=None, description="file with its password; read before each mail"
    )

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if self.encryption == "none" and not self.is_on_this_machine:
            raise ValueError(
                f"encryption of {self.name} must be starttls: only a server on this machine "
                "(127.0.0.1) may be reached without it"
            )
        if (self.user is None) != (self.password_file is None):
            raise ValueError(f"{self.name} needs both user and password_file, or neither")
        return self


class NoticeSettings(_Part):
    """Who is told what needs a person."""

    pause_minutes: float = Field(
        default=15.0,
        ge=0,
        le=1440,
        description=(
            "shortest time between two notices of one channel, minutes; what happens meanwhile is "
            "gathered in the next one"
        ),
    )
    certificate_days: int = Field(
        default=30,
        ge=1,
        le=365,
        description="days before its end from which on a certificate is a reason for a notice",
    )
    webhooks: tuple[WebhookSettings, ...] = Field(
        default=(), description="URLs to which notices are posted ([notices](notices.md))"
    )
    mails: tuple[MailSettings, ...] = Field(default=(), description="mail servers for notices")


class Receiver(_Part):
    """How the node listens."""

    ae_title: AETitle = Field(
        default="REBRAIN",
        description=(
            "AE title the node answers to, at most 16 characters; other called AE titles are "
            "rejected"
        ),
    )
    address: str = Field(
        default="127.0.0.1", description="address to listen on; `0.0.0.0` for every interface"
    )
    port: Port = Field(default=11112, description="TCP port to listen on")
    peers: tuple[Peer, ...] = Field(
        default=(), description="who may associate; empty means nobody (default deny)"
    )
    maximum_associations: int = Field(
        default=25,
        ge=1,
        le=500,
        description=(
            "associations at a time; one more is rejected as transient, so that senders try again"
        ),
    )
    maximum_unassociated: int = Field(
        default=32, ge=1, le=1000, description="connections at a time that have not associated yet"
    )
    maximum_unassociated_per_address: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="connections of one address at a time that have not associated yet",
    )
    maximum_message_bytes: int = Field(
        default=67108864,
        ge=1048576,
        description=(
            "largest DIMSE message, bytes; a classic CT slice takes less than 1 MB, raise it for "
            "Enhanced CT, e.g. to 1073741824"
        ),
    )
    pdu_timeout_s: float = Field(
        default=30.0, gt=0, description="seconds one PDU may take once associated"
    )
    association_timeout_s: float = Field(
        default=10.0, gt=0, description="seconds a connection may take to associate"
    )


class Completeness(_Part):
    """When a study is taken as complete; only time in which the receiver listens counts."""

    quiet_period_s: float = Field(
        default=30.0,
        ge=0.5,
        le=3600,
        description="a study is taken as complete this long after its last instance, seconds",
    )
    maximum_wait_s: float = Field(
        default=1800.0,
        ge=1,
        le=86400,
        description=(
            "a study is taken as complete at the latest this long after its first instance, seconds"
        ),
    )
    resume_wait_s: float = Field(
        default=300.0,
        ge=0,
        le=86400,
        description=(
            "a study that was in reception when the receiver stopped is taken as complete at the "
            "earliest this long after the receiver listens again, unless its sender goes on, "
            "seconds; longer than the pause after which senders try again"
        ),
    )
    verify: Literal["never", "ask", "require"] = Field(
        default="ask",
        description=(
            "whether the source of a series is asked how many instances it has, once the quiet "
            "period is over: `never`; `ask`, where `receiver.peers.query` names a source; "
            "`require`, and a series that cannot be verified waits for `verify_wait_s` and is "
            "then refused (`NOT-VERIFIED`)"
        ),
    )
    verify_pause_s: float = Field(
        default=10.0,
        ge=0.1,
        le=600,
        description=(
            "pause between two questions to the source, seconds; a number is taken when two "
            "answers agree"
        ),
    )
    verify_wait_s: float = Field(
        default=600.0,
        ge=1,
        le=86400,
        description=(
            "how long a series of which the source has more waits for the rest, seconds; then it "
            "is refused or flagged (`SOURCE-HAS-MORE`) as the policy of the limits says"
        ),
    )


class Storage(_Part):
    """Where state lives."""

    folder: Path = Field(
        default=Path("/var/lib/rebrain-node"),
        description="where instances, database and results live; one node a folder",
    )
    database_url: str | None = Field(
        default=None,
        description=(
            "database of the node, e.g. `postgresql+psycopg://user@host/name`; none means SQLite "
            "inside `storage.folder`"
        ),
    )
    soft_mark_bytes: int = Field(
        default=5_000_000_000, ge=0, description="below this much free disk no new study is judged"
    )
    hard_mark_bytes: int = Field(
        default=1_000_000_000,
        ge=0,
        description="below this much free disk C-STORE is answered 0xA700",
    )


class RetentionSettings(_Part):
    """How long stored bytes are kept; rows of the ledger are kept, the log's by `audit.years`."""

    delivered_days: float = Field(
        default=30.0,
        ge=0,
        description=(
            "days after which received instances and results are deleted that every destination "
            "has confirmed"
        ),
    )
    refused_days: float = Field(
        default=30.0,
        ge=0,
        description="days after which received instances of refused and failed series are deleted",
    )


class DecodingSettings(_Part):
    """What decoding one frame of compressed pixels may take."""

    maximum_frame_bytes: int = Field(
        default=134217728,
        ge=1024,
        description="largest frame of compressed pixels once decoded, bytes",
    )
    memory_bytes: int = Field(
        default=1073741824,
        ge=16777216,
        description="memory that the decoder of one frame may take, bytes",
    )
    time_s: float = Field(
        default=30.0,
        ge=0.1,
        le=600,
        description="seconds that the decoder of one frame may take; then it is ended",
    )


class Model(_Part):
    """Which bundle, by whom it may be released, on which engine."""

    bundle: Path | None = Field(
        default=None,
        description="folder of the model bundle; none means the demonstration bundle that ships",
    )
    trusted_keys: tuple[Path, ...] = Field(
        default=(),
        description=(
            "files of public Ed25519 keys (PEM) whose bundles are taken, each called by its "
            "file's name; the key of the bundle that ships is always one of them ([who may "
            "release](how-to/sign-a-bundle.md))"
        ),
    )
    unsigned: Literal["refuse", "accept"] = Field(
        default="refuse",
        description=(
            "a bundle without a signature: `refuse` or `accept`; a signature that is there must "
            "be good either way"
        ),
    )
    accept_older: (
        Annotated[
            str, _text("[0-9a-f]{64}", "must be the digest of a bundle: 64 digits, 0-9 and a-f")
        ]
        | None
    ) = Field(
        default=None,
        description=(
            "digest of the one bundle that is taken although a newer one of its name was active"
            " here"
        ),
    )
    engine: Literal["openvino", "torch"] = Field(
        default="openvino",
        description="`openvino`, or `torch` as the reference (needs the `train` extra)",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description=(
            "threads of each worker's engine; none means the cores shared among the workers"
        ),
    )


class Objects(_Part):
    """Which objects are written, and how."""

    mr: Literal["classic", "enhanced"] = Field(
        default="classic",
        description=(
            "the synthetic series: `classic`, one MR Image a slice, which every PACS shows; "
            "`enhanced`, one multi-frame Enhanced MR Image"
        ),
    )
    companions: tuple[Literal["PM", "SEG", "SC", "SR", "KOS"], ...] = Field(
        default=("PM", "SEG", "SC", "SR", "KOS"), description="objects written beside the MR series"
    )
    map_precision: Literal["float32", "uint16"] = Field(
        default="uint16",
        description="pixels of the uncertainty map: `uint16`, which viewers show, or `float32`",
    )
    preview_banner: Literal["none", "border", "full"] = Field(
        default="border", description="banner of the preview: `none`, `border` or `full`"
    )
    uncertain_above: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description=(
            "none means the limit of the bundle's recipe (`abstain.voxel_above`), or 0.1 where it"
            " has none; voxels whose uncertainty is above this ratio of the display range are "
            "marked in the segmentation as not to be trusted; above 0, below 1"
        ),
    )


class AuditSettings(_Part):
    """How often the audit log is signed, and how long its rows are kept."""

    checkpoint_rows: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="a signed checkpoint is written at the latest after this many rows",
    )
    checkpoint_minutes: float = Field(
        default=10.0,
        gt=0,
        le=1440,
        description=(
            "a signed checkpoint is written at the latest this long after the one before, minutes, "
            "where there are new rows; and soon after each published series"
        ),
    )
    years: float | None = Field(
        default=None,
        ge=1,
        le=100,
        description=(
            "rows older than this are exported to the folder `audit-archive`, sealed by a signed "
            "checkpoint and removed; none keeps all rows permanently"
        ),
    )


class MarksSettings(_Part):
    """How a viewer shows that the MR is synthetic, beside the words that every object holds."""

    visible: Literal["none", "presentation-state", "corner", "border"] = Field(
        default="presentation-state",
        description=(
            "mark that viewers show on the MR: `none`; `presentation-state`, an object of the set "
            "with the words SYNTHETIC - NOT FOR DIAGNOSIS, which leaves the pixels as they are; "
            "`corner`, these words in the pixels, or `border`, a white frame in them: never on the "
            "head of a slice, and where there is no room there is none and Image Comments say so"
        ),
    )


class ShadowSettings(_Part):
    """Shadow mode: everything is made and judged, nothing goes to the clinical destinations."""

    active: bool = Field(
        default=False,
        description=(
            "whether results stay in the node: they are kept for every destination, and `outbox "
            "retry` sends chosen ones once this is false again; nobody is notified, no workitem "
            "is claimed ([shadow mode](how-to/shadow-mode.md))"
        ),
    )
    destination: str | None = Field(
        default=None,
        description=(
            "name of the one destination that gets the results while shadow mode is active, a "
            "test archive; none means that they stay in the node"
        ),
    )


class StopSettings(_Part):
    """When delivery stops by itself, until a person releases it."""

    rules: tuple[JudgedRule, ...] = Field(
        default=JUDGED_RULES,
        description=(
            "rules that are applied: `failures`, `drift`, `uncertainty`; an empty list applies "
            "none ([delivery](delivery.md#when-delivery-stops))"
        ),
    )
    results: int = Field(
        default=50, ge=1, le=1000, description="newest series that each rule looks at"
    )
    least_results: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="no rule stops delivery on fewer series than this, at most `stop.results`",
    )
    failed_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description=(
            "delivery stops when more than this share of the newest series failed or was refused "
            "by the gate"
        ),
    )
    uncertainty: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description=(
            "delivery stops when the mean uncertainty of the newest results is above this, ratio "
            "of the display range; none means the limit of the bundle for a slice "
            "(`abstain.slice_above`); a bundle without one stops nothing"
        ),
    )
    drift_sd: float = Field(
        default=3.0,
        gt=0,
        le=50,
        description=(
            "delivery stops when the median of a statistic of the newest CT lies farther from the "
            "series behind the bundle than this, on either side, standard deviations"
        ),
    )
    drift_hu: float = Field(
        default=10.0,
        gt=0,
        le=100,
        description=(
            "delivery stops when the median level of brain tissue lies farther from that which "
            "the bundle expects than this, on either side, HU"
        ),
    )
    drift_ood: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description=(
            "delivery stops when the median OOD score is more than this many times the threshold "
            "of the bundle"
        ),
    )

    @model_validator(mode="after")
    def _looks_at_enough(self) -> Self:
        if self.least_results > self.results:
            raise ValueError(
                f"stop.least_results is {self.least_results}, but only the newest {self.results} "
                "series are looked at (stop.results): no rule would ever stop delivery; lower "
                "least_results, or raise results"
            )
        return self


class AcceptanceSettings(_Part):
    """What shadow mode must show before the site goes on; `audit acceptance` compares."""

    results: int = Field(default=50, ge=1, description="results of shadow mode, at least")
    verdicts: int = Field(
        default=20, ge=1, description="results that a person has judged (`queue verdict`), at least"
    )
    accepted_share: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description=(
            "lower end of the 95 % interval of the share of judged results that were accepted, at "
            "least"
        ),
    )
    failed_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="share of series that failed or were refused by the gate, at most",
    )
    latency_s: float = Field(
        default=900.0,
        gt=0,
        description="seconds from complete study to result that 90 % of the results keep",
    )
    ood_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of results with an OOD score above the threshold of the bundle, at most",
    )


class HealthSettings(_Part):
    """Probes and metrics for a monitoring system on this machine."""

    port: Port | None = Field(
        default=None,
        description=(
            "TCP port on 127.0.0.1 for `/healthz`, `/readyz` and `/metrics`, e.g. 11180; none "
            "means that nothing listens"
        ),
    )


class Settings(BaseSettings):
    """All settings of a node; docs/settings.md lists each."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description=(
            "processes that synthesise and deliver, 1 to 64; each loads the network once and "
            "shares the cores"
        ),
    )
    limits: Path | None = Field(
        default=None, description="file of clinical limits; none means the limits that ship"
    )
    revisions: Literal["keep", "reject-quality", "reject-safety"] = Field(
        default="keep",
        description=(
            "the result of an earlier revision once a later one is published: `keep` it, or send "
            "a rejection note for it to every destination that holds it, with the title 113001 "
            "(`reject-quality`) or 113037 (`reject-safety`)"
        ),
    )
    receiver: Receiver = Receiver()
    completeness: Completeness = Completeness()
    storage: Storage = Storage()
    decoding: DecodingSettings = DecodingSettings()
    health: HealthSettings = HealthSettings()
    audit: AuditSettings = AuditSettings()
    audit_messages: AuditMessageSettings = AuditMessageSettings()
    notices: NoticeSettings = NoticeSettings()
    retention: RetentionSettings = RetentionSettings()
    model: Model = Model()
    objects: Objects = Objects()
    marks: MarksSettings = MarksSettings()
    shadow: ShadowSettings = ShadowSettings()
    stop: StopSettings = StopSettings()
    acceptance: AcceptanceSettings = AcceptanceSettings()
    destinations: tuple[DestinationSettings, ...] = Field(
        default=(), description="where results are sent; empty means they are kept and not sent"
    )
    dicomweb_destinations: tuple[WebDestinationSettings, ...] = Field(
        default=(), description="where results are sent over DICOMweb"
    )
    notifications: tuple[NotificationSettings, ...] = Field(
        default=(),
        description=(
            "DICOM systems that are notified once a destination has confirmed a set "
            "([delivery](delivery.md))"
        ),
    )
    workflow_managers: tuple[WorkflowManagerSettings, ...] = Field(
        default=(),
        description=(
            "workflow managers whose workitems the node claims and ends once the study that they "
            "name has ended (UPS-RS; [delivery](delivery.md))"
        ),
    )
    sources: tuple[DicomRemote, ...] = Field(
        default=(),
        description=(
            "DICOM systems that are only asked how many instances a series has (C-FIND); a "
            "destination can be asked as it is"
        ),
    )
    dicomweb_sources: tuple[WebRemote, ...] = Field(
        default=(), description="the same over DICOMweb (QIDO-RS)"
    )

    @property
    def destination_names(self) -> tuple[str, ...]:
        """Names of all destinations, in their order."""
        return tuple(each.name for each in (*self.destinations, *self.dicomweb_destinations))

    @property
    def due_names(self) -> tuple[str, ...]:
        """Names of the destinations that new results are sent to."""
        if not self.shadow.active:
            return self.destination_names
        return () if self.shadow.destination is None else (self.shadow.destination,)

    @property
    def kept_names(self) -> tuple[str, ...]:
        """Names of the destinations for which shadow mode keeps new results."""
        return tuple(name for name in self.destination_names if name not in self.due_names)

    @property
    def notified(self) -> tuple[tuple[str, str], ...]:
        """Pairs of a destination and a receiver that is notified of what it has confirmed."""
        confirming = [each.name for each in self.destinations if each.confirmation != "none"]
        return tuple(
            (name, each.name)
            for each in self.notifications
            for name in each.destinations or confirming
            if not (self.shadow.active and name == self.shadow.destination)
        )

    @property
    def remotes(self) -> Mapping[str, DicomRemote | WebRemote]:
        """Every source and destination by its name."""
        every: tuple[DicomRemote | WebRemote, ...] = (
            *self.destinations, *self.dicomweb_destinations,
            *self.sources, *self.dicomweb_sources,
        )  # fmt: skip
        return {each.name: each for each in every}

    @model_validator(mode="after")
    def _names_each_remote_once(self) -> Self:
        extra: tuple[_Remote | WebhookSettings, ...] = (
            *self.sources, *self.dicomweb_sources, *self.notifications, *self.workflow_managers,
            *self.audit_messages.collectors, *self.notices.webhooks, *self.notices.mails,
        )  # fmt: skip
        names = [*self.destination_names, *(each.name for each in extra)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                "two destinations, sources, notifications, workflow managers, collectors or "
                f"channels of notices have the name {twice[0]!r}; give each its own"
            )
        for peer in self.receiver.peers:
            if peer.query is not None and peer.query not in self.remotes:
                raise ValueError(
                    f"receiver.peers.query of {peer.ae_title} names {peer.query!r}, which is no "
                    "source and no destination; add it as [[sources]], or correct the name"
                )
        return self

    @model_validator(mode="after")
    def _keeps_for_a_known_destination(self) -> Self:
        name = self.shadow.destination
        if name is not None and name not in self.destination_names:
            known = ", ".join(self.destination_names) or "none"
            raise ValueError(
                f"shadow.destination names {name!r}, which is no destination; there are: {known}"
            )
        return self

    @model_validator(mode="after")
    def _notifies_of_what_is_confirmed(self) -> Self:
        modes = {each.name: each.confirmation for each in self.destinations}
        for each in self.notifications:
            if not each.destinations and set(modes.values()) <= {"none"}:
                raise ValueError(
                    f"notifications: {each.name} would never be notified, because no "
                    "[[destinations]] has a confirmation other than none; set query or commitment"
                )
            for name in each.destinations:
                if modes.get(name, "none") == "none":
                    why = (
                        "whose confirmation is none, so that nothing is ever confirmed; set query "
                        "or commitment"
                        if name in modes
                        else "which is none of the [[destinations]]; correct the name"
                    )
                    raise ValueError(
                        f"notifications.destinations of {each.name} names {name!r}, {why}"
                    )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - one settings class
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no dotenv file is read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no secrets folder
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment override the file; nothing else is read."""
        return env_settings, init_settings


def load_settings(path: Path | None) -> Settings:
    """Read and check the settings file; without one the defaults and the environment hold.

    Raises
    ------
    SettingsError
        The file is missing or not TOML, or a setting is unknown or outside its range.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}; give --config FILE") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} is not TOML: {error}") from error
    try:
        return Settings(**values)
    except ValidationError as error:
        faults = faults_of(error, Settings)
        raise SettingsError(f"{path or 'environment'}: {faults}") from error
    except EnvironmentFault as error:
        raise SettingsError(_bad_variables()) from error


_DATA_FOLDER = f"{_PREFIX}DATA"  # of the trainer, which may run on the same machine


def misspelt_variables() -> list[str]:
    """Return a sentence for each environment variable that names no setting but nearly does."""
    groups = [f"{_PREFIX}{name.upper()}" for name in Settings.model_fields]
    return [
        f"the environment variable {name} names no setting{hint}"
        for name in sorted(os.environ)
        if name.startswith(_PREFIX)
        and name != _DATA_FOLDER
        and (first := name.partition("__")[0]) not in groups
        and (hint := nearest(first, groups))
    ]


def _bad_variables() -> str:
    """Name the variables that hold what looks like JSON and is none."""
    faults = []
    for name, text in sorted(os.environ.items()):
        if name.startswith(_PREFIX) and text.lstrip()[:1] in ("[", "{"):
            try:
                json.loads(text)
            except ValueError as error:
                faults.append(f"{name} is not JSON: {error}")
    found = "; ".join(faults) or "a list or table is not JSON"
    return (
        f"environment: {found}; a list or table is written "
        """as JSON, e.g. REBRAIN_SOURCES='[{"name": "pacs", "ae_title": "PACS", "host": "h"}]'"""
    )
