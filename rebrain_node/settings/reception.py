"""How the node listens, and when a study is complete."""

from __future__ import annotations

import ipaddress
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic import field_validator as validator

from rebrain_node.settings.tls import ReceiverTlsSettings, certificate_binding
from rebrain_node.settings.values import AETitle, Port, Section


class Peer(Section):
    """One sender that may associate."""

    ae_title: AETitle = Field(description="calling AE title of a sender")
    addresses: tuple[str, ...] = Field(
        default=("127.0.0.1/32",), description="networks that sender may call from, CIDR"
    )
    certificates: tuple[str, ...] | None = Field(
        default=None,
        description=(
            "certificates of which that sender must present one, each as SHA-256 fingerprint, as "
            "subject (`CN=...,O=...`) or as absolute path of a PEM file; none means any that an "
            "authority of `receiver.tls` has issued, or none ([TLS](how-to/tls.md))"
        ),
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

    @validator("certificates")
    @classmethod
    def _are_certificates(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is None:
            return None
        if not value:
            raise ValueError(
                "is empty; name a certificate, leave `certificates` out so that any of the "
                "authority will do, or delete the peer to keep the sender out"
            )
        return tuple(certificate_binding(each) for each in value)


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


class Receiver(Section):
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
    port: Port | None = Field(
        default=11112,
        description=(
            "TCP port of plain DICOM, which is not encrypted; with `receiver.tls` it is opened "
            "only where it is set"
        ),
    )
    tls: ReceiverTlsSettings | None = Field(
        default=None,
        description="DICOM over TLS ([TLS](how-to/tls.md)); none means plain DICOM alone",
    )
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

    @model_validator(mode="before")
    @classmethod
    def _opens_the_plain_port_where_it_is_set(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("tls") is not None:
            return {"port": None} | values
        return values

    @model_validator(mode="after")
    def _listens(self) -> Self:
        if self.tls is None and self.port is None:
            raise ValueError("neither port nor tls is set: nothing would listen; set one of them")
        if self.tls is not None and self.tls.port == self.port:
            raise ValueError(f"port and tls.port are both {self.port}; give each its own")
        asked = self.tls is not None and self.tls.client_certificates == "required"
        for peer in self.peers:
            if peer.certificates and not asked:
                raise ValueError(
                    f"peers: {peer.ae_title} must present a certificate, and none is asked for; "
                    'set receiver.tls with client_certificates = "required"'
                )
        return self

    @property
    def listening_words(self) -> tuple[str, ...]:
        """Say for each port whether it is encrypted."""
        words = []
        if self.tls is not None:
            asked = self.tls.client_certificates == "required"
            who = "client certificates required" if asked else "no client certificate is asked for"
            words.append(f"port {self.tls.port}: TLS, {who}")
        if self.port is not None:
            words.append(f"port {self.port}: plain DICOM, not encrypted")
        return tuple(words)


class Completeness(Section):
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


class DecodingSettings(Section):
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
