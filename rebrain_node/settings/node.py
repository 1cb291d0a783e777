"""All sections together, and rules between them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from rebrain_node.settings.messages import AuditMessageSettings, NoticeSettings, WebhookSettings
from rebrain_node.settings.reception import Completeness, DecodingSettings, Receiver
from rebrain_node.settings.release import AcceptanceSettings, ShadowSettings, StopSettings
from rebrain_node.settings.remotes import (
    DestinationSettings,
    DicomRemote,
    NotificationSettings,
    Remote,
    WebDestinationSettings,
    WebRemote,
    WorkflowManagerSettings,
)
from rebrain_node.settings.results import MarksSettings, Model, Objects
from rebrain_node.settings.storage import AuditSettings, HealthSettings, RetentionSettings, Storage
from rebrain_node.settings.values import MachineName

PREFIX: Final = "REBRAIN_"


class Settings(BaseSettings):
    """All settings of a node; docs/settings.md lists each."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    machine: MachineName | None = Field(
        default=None,
        description=(
            "name of this machine among those that share a database ([several machines]"
            "(how-to/several-machines.md)); none means its host name"
        ),
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
        extra: tuple[Remote | WebhookSettings, ...] = (
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
