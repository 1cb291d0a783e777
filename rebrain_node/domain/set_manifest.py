"""What a set consists of, signed by the node that made it: the basis on which a file is verified.

The manifest is JSON. Signed (Ed25519) are the bytes of `SetManifest.statement`: all of it except
`signature`, keys sorted, without spaces, in ASCII. It names DICOM UIDs and hashes, and nothing
else of the patient. The same set gives the same manifest, byte for byte.
"""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: longest text that is read as a manifest, characters; one object takes some 450
_LONGEST: Final = 32_000_000
_PREFIX: Final = "set-manifest-"
_SUFFIX: Final = ".json"
_SHA256: Final = "^[0-9a-f]{64}$"
_UID: Final = r"^[0-9.]{1,64}$"


class ManifestObject(BaseModel):
    """One object of the set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(pattern="^[A-Z]{2,4}$")  #: domain.job.ObjectKind
    sop_instance_uid: str = Field(pattern=_UID)
    series_instance_uid: str = Field(pattern=_UID)
    sha256: str = Field(pattern=_SHA256)  #: of the file
    content_sha256: str = Field(pattern=_SHA256)  #: of the elements as decoded
    pixels_sha256: str | None = Field(pattern=_SHA256)  #: as decoded; None without pixels


class SetManifest(BaseModel):
    """All objects of a set, and who made them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["rebrain-node set manifest 1"] = "rebrain-node set manifest 1"
    node: str  #: AE title
    software: str  #: version of rebrain-node
    bundle: str  #: name and version
    bundle_digest: str = Field(pattern=_SHA256)
    set_digest: str = Field(pattern=_SHA256)  #: `Provenance.digest`; every object names it
    revision: int = Field(ge=1)
    objects: tuple[ManifestObject, ...]
    key: str | None = Field(default=None, pattern=_SHA256)  #: public, hexadecimal
    signature: str | None = Field(default=None, pattern="^[0-9a-f]{128}$")

    @property
    def statement(self) -> bytes:
        """The bytes that are signed."""
        content = self.model_dump(mode="json", exclude={"signature"})
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")

    @property
    def text(self) -> str:
        """The manifest as it is stored, with a line for each field."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"

    @property
    def file_name(self) -> str:
        """Name of its file beside the objects."""
        return f"{_PREFIX}{self.set_digest[:16]}{_SUFFIX}"


def is_manifest(path: PurePath) -> bool:
    """Whether a file is a set manifest, by its name."""
    return path.name.startswith(_PREFIX) and path.suffix == _SUFFIX


def parse_manifest(text: str) -> SetManifest:
    """Read a manifest, whoever signed it.

    Raises
    ------
    ValueError
        It is too long or not of this format.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"it has more than {_LONGEST} characters")
    try:
        return SetManifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{place}: {first['msg']}") from error
