"""What the site decides: a TOML file, overridden by ``REBRAIN_*`` environment variables.

Three kinds of configuration never mix: settings (this file), limits (clinical lead,
conf/limits.toml) and the recipe (travels in the bundle).
"""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic import field_validator as validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from rebrain_node.errors import SettingsError
from rebrain_node.validation import faults_of

#: AE title: 1 to 16 characters of the default repertoire, no backslash (PS3.5 6.2, VR AE)
AETitle = Annotated[
    str, StringConstraints(strip_whitespace=True, pattern=r"^[\x20-\x5b\x5d-\x7e]{1,16}$")
]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Peer(_Part):
    """One sender that may associate."""

    ae_title: AETitle
    addresses: tuple[str, ...] = ("127.0.0.1/32",)  #: networks it may call from, CIDR

    @validator("addresses")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_network(network)) for network in value)


class DestinationSettings(_Part):
    """One remote that gets the results."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    ae_title: AETitle
    host: str
    port: Port = 104
    timeout_s: float = Field(default=30.0, gt=0, le=600)


class Receiver(_Part):
    """How the node listens."""

    ae_title: AETitle = "REBRAIN"
    address: str = "127.0.0.1"
    port: Port = 11112
    peers: tuple[Peer, ...] = ()  #: default deny: nobody
    maximum_associations: int = Field(default=25, ge=1, le=500)
    maximum_unassociated: int = Field(default=32, ge=1, le=1000)
    maximum_unassociated_per_address: int = Field(default=8, ge=1, le=1000)
    maximum_message_bytes: int = Field(default=268435456, ge=1048576)
    pdu_timeout_s: float = Field(default=30.0, gt=0)
    association_timeout_s: float = Field(default=10.0, gt=0)


class Completeness(_Part):
    """When a study is taken as complete."""

    quiet_period_s: float = Field(default=30.0, ge=0.5, le=3600)
    maximum_wait_s: float = Field(default=1800.0, ge=1, le=86400)


class Storage(_Part):
    """Where state lives."""

    folder: Path = Path("/var/lib/rebrain-node")
    database_url: str | None = None  #: default: SQLite inside ``folder``
    soft_mark_bytes: int = Field(default=5_000_000_000, ge=0)  #: below it synthesis pauses
    hard_mark_bytes: int = Field(default=1_000_000_000, ge=0)  #: below it C-STORE gets 0xA700


class Model(_Part):
    """Which bundle, by whom it may be released, on which engine."""

    bundle: Path | None = None  #: default: the demonstration bundle that ships
    trusted_keys: tuple[Path, ...] = ()  #: public keys (PEM), beside the one that ships
    unsigned: Literal["refuse", "accept"] = "refuse"  #: a bundle without a signature
    #: digest of the one bundle that may follow a newer one of its name
    accept_older: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    engine: Literal["openvino", "torch"] = "openvino"
    threads: int | None = Field(default=None, ge=1, le=256)  #: default: all cores


class Objects(_Part):
    """Which objects are written, and how."""

    mr: Literal["classic", "enhanced"] = "classic"  #: one instance a slice, or one for all
    companions: tuple[Literal["PM", "SEG", "SC", "SR", "KOS"], ...] = (
        "PM", "SEG", "SC", "SR", "KOS",
    )  # fmt: skip
    map_precision: Literal["float32", "uint16"] = "float32"
    preview_banner: Literal["none", "border", "full"] = "border"
    #: voxels with a larger expected error, as a ratio of the display range, are in the SEG
    uncertain_above: float | None = Field(default=None, gt=0, lt=1)


class Settings(BaseSettings):
    """All settings of a node; docs/settings.md lists each."""

    model_config = SettingsConfigDict(
        env_prefix="REBRAIN_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    receiver: Receiver = Receiver()
    completeness: Completeness = Completeness()
    storage: Storage = Storage()
    model: Model = Model()
    objects: Objects = Objects()
    destinations: tuple[DestinationSettings, ...] = ()
    limits: Path | None = None  #: default: the limits that ship
    workers: int = Field(default=1, ge=1, le=64)

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
        raise SettingsError(f"{path or 'environment'}: {faults_of(error)}") from error
