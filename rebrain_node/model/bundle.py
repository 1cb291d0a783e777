"""A model bundle: a folder whose manifest lists every file in it by size and SHA-256.

    manifest.json          format, name, version, SHA-256 and size of every other file
    manifest.sig           signature of the manifest's bytes by the releaser; the one file that the
                           manifest does not list (rebrain_node.model.signature)
    recipe.json            settings of the network (rebrain_node.model.recipe)
    card.json  CARD.md     training data, scores and limits (rebrain_node.model.card)
    weights.safetensors    weights of the network for torch
    network.onnx           the same network, static shapes
    golden.safetensors     x, s and the float32 output f: every engine must reproduce it

and, where its recipe retrieves exemplars:

    encoder.onnx           one CT slice to its embedding
    encoder.safetensors    the same encoder for torch (optional)
    control.onnx           the control branch: a retrieved slice guides the network
    control.safetensors    the same for torch (optional)
    exemplars/*            the knowledge base (rebrain_node.retrieval.knowledge_base)

and, where it was fitted (`rebrain-train fit-ood`):

    domain.json            the out-of-distribution model (rebrain_node.model.ood)

and, where its uncertainty was calibrated (golden.safetensors then contains b as well):

    scale.onnx             the residual-scale head (rebrain_node.model.residual_scale)
    scale.safetensors      the same for torch (optional)
    calibration.json       widths of the intervals (rebrain_node.model.calibration)

Every file is read into memory and compared with the manifest, and only those bytes are used: the
loaded bytes are the hashed bytes. The SHA-256 of the manifest therefore identifies the whole
bundle, and its signature covers the name, the version and every byte. Which signers are trusted is
the node's policy (`rebrain_node.app.bundle`).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rebrain_node.domain.release import VERSION, Release
from rebrain_node.domain.uncertainty import RULE_OF_THUMB, UncertaintyInterpretation
from rebrain_node.errors import BundleError
from rebrain_node.model.calibration import Calibration
from rebrain_node.model.card import Card
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.ood import OodModel
from rebrain_node.model.recipe import Recipe
from rebrain_node.validation import faults_of

T = TypeVar("T", bound=BaseModel)

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
FILES = (
    "recipe.json",
    "card.json",
    "CARD.md",
    "weights.safetensors",
    "network.onnx",
    "golden.safetensors",
)
OPTIONAL_FILES = (
    "encoder.onnx",
    "encoder.safetensors",
    "control.onnx",
    "control.safetensors",
    "domain.json",
    "scale.onnx",
    "scale.safetensors",
    "calibration.json",
)
EXEMPLARS = "exemplars"
#: files of the folder that the manifest does not list
_BESIDE = (MANIFEST, SIGNATURE)
#: larger files are read and verified again when they are needed, not kept
_HELD_BYTES = 65536
#: a file of the knowledge base: one folder deep, no character that changes a path
_EXEMPLAR_FILE = re.compile(rf"{EXEMPLARS}/[a-z0-9][a-z0-9_]*\.(npy|npy\.z|json)")


class FileRecord(BaseModel):
    """Size and SHA-256 of one file of a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @classmethod
    def of(cls, content: bytes) -> "FileRecord":
        """Describe `content`."""
        return cls(size=len(content), sha256=hashlib.sha256(content).hexdigest())


class Manifest(BaseModel):
    """`manifest.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    name: str = Field(pattern="^[a-z0-9][a-z0-9.-]*$")
    version: str = Field(pattern=f"^{VERSION}$")
    files: dict[str, FileRecord]


@dataclass(frozen=True, kw_only=True)
class ModelBundle:
    """A verified bundle; make one with `load_bundle`.

    Attributes
    ----------
    digest : str
        SHA-256 of the bytes of the manifest, hexadecimal: the identity of the model.
    ood_model : OodModel or None
        None where the bundle has no out-of-distribution model.
    calibration : Calibration or None
        Of its uncertainty; None where only the rule of thumb is available.
    """

    path: Path
    manifest: Manifest
    recipe: Recipe
    card: Card
    digest: str
    ood_model: OodModel | None = None
    calibration: Calibration | None = None
    _contents: Mapping[str, bytes] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """Version of the model."""
        return self.manifest.version

    @property
    def release(self) -> Release:
        """Name, version and digest, by which bundles are compared."""
        return Release(name=self.name, version=self.version, digest=self.digest)

    def read(self, name: str) -> bytes:
        """Return the bytes of one file of the bundle, verified: large files are read anew.

        Raises
        ------
        BundleError
            The bundle has no such file, or it was altered since the bundle was loaded.
        """
        if name in self._contents:
            return self._contents[name]
        if name not in self.manifest.files:
            raise BundleError(f"bundle {self.path} has no file {name}")
        return _verified(self.path, name, self.manifest.files[name])

    @property
    def exemplars(self) -> Mapping[str, bytes]:
        """Verified bytes of the knowledge base by the names in its folder; empty without one."""
        return {
            name.removeprefix(f"{EXEMPLARS}/"): self.read(name)
            for name in self._contents.keys() | self.manifest.files
            if name.startswith(f"{EXEMPLARS}/")
        }

    @property
    def meaning(self) -> UncertaintyInterpretation:
        """Interpretation of the values of its uncertainty maps."""
        if self.calibration is None:
            return RULE_OF_THUMB
        limit = None if self.recipe.abstain is None else self.recipe.abstain.slice_above
        return UncertaintyInterpretation(
            alpha=self.calibration.alpha,
            subjects=self.calibration.people,
            source=self.calibration.source,
            untrusted_above=limit,
        )

    def holds(self, name: str) -> bool:
        """Whether the bundle has this file."""
        return name in self._contents or name in self.manifest.files

    @property
    def embeds(self) -> bool:
        """Whether measured slices are embedded: for retrieval or for the OOD model."""
        ood = self.ood_model
        return self.recipe.retrieves or (ood is not None and ood.embedding is not None)

    @property
    def locates(self) -> bool:
        """Whether the position of the slices in the head is needed."""
        return self.recipe.retrieves or self.ood_model is not None


def load_bundle(path: Path) -> ModelBundle:
    """Load the bundle in the folder `path` and compare every file with its manifest.

    Raises
    ------
    BundleError
        A file is missing, altered, truncated or not in the manifest, the manifest, recipe, card
        or calibration cannot be read, or the calibration belongs to another network. The message
        names the file, what was expected and what was found.
    """
    manifest_bytes = _read(path, MANIFEST)
    manifest = parsed(Manifest, manifest_bytes, path / MANIFEST)
    present = _present_in(path)
    _check_names(path, manifest, present)
    contents = {
        name: _verified(path, name, record) for name, record in sorted(manifest.files.items())
    }
    recipe = parsed(Recipe, contents["recipe.json"], path / "recipe.json")
    _check_retrieval(path, recipe, set(contents))
    card = parsed(Card, contents["card.json"], path / "card.json")
    contents[MANIFEST] = manifest_bytes
    if SIGNATURE in present:
        contents[SIGNATURE] = _read(path, SIGNATURE)
    return ModelBundle(
        path=path,
        manifest=manifest,
        recipe=recipe,
        card=card,
        digest=hashlib.sha256(manifest_bytes).hexdigest(),
        ood_model=_ood_model(path, recipe, contents),
        calibration=_calibration(path, manifest, contents),
        _contents={
            name: held
            for name, held in contents.items()
            if len(held) <= _HELD_BYTES or name in _BESIDE
        },
    )


def write_bundle(path: Path, name: str, version: str, contents: Mapping[str, bytes]) -> None:
    """Write a new bundle folder; the manifest comes last.

    Raises
    ------
    BundleError
        `contents` lacks a required file or contains one that no bundle has, or name or version do
        not have the form that a manifest requires.
    """
    if not _are_files_of_a_bundle(set(contents)):
        raise BundleError(f"a bundle contains {sorted(FILES)}, not {sorted(contents)}")
    records = {
        file_name: FileRecord.of(contents[file_name]).model_dump() for file_name in sorted(contents)
    }
    fields = {"format": 1, "name": name, "version": version, "files": records}
    manifest = (json.dumps(fields, indent=2) + "\n").encode()
    parsed(Manifest, manifest, path / MANIFEST)
    path.mkdir(parents=True, exist_ok=True)
    for file_name, content in contents.items():
        (path / file_name).parent.mkdir(exist_ok=True)
        (path / file_name).write_bytes(content)
    (path / MANIFEST).write_bytes(manifest)


def parsed(kind: type[T], content: bytes, file: Path) -> T:
    """Read one JSON file of a bundle.

    Raises
    ------
    BundleError
        It is not JSON of this kind; the message names each wrong value.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(
            f"{file}: {faults_of(error)}; copy the bundle again, or use the version of this "
            "software that it was made for"
        ) from error


def _read(path: Path, name: str) -> bytes:
    file = path / name
    if file.is_symlink() or file.parent.is_symlink():
        raise BundleError(
            f"{file}: expected a regular file, found a symbolic link on the path; "
            "copy the bundle itself"
        )
    if not file.is_file():
        raise BundleError(f"{file}: expected a regular file, found none; copy the bundle again")
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error


def _verified(path: Path, name: str, expected: FileRecord) -> bytes:
    content = _read(path, name)
    found = FileRecord.of(content)
    if found.size != expected.size:
        raise BundleError(
            f"{path / name}: expected {expected.size} bytes, found {found.size}; "
            "copy the bundle again"
        )
    if found.sha256 != expected.sha256:
        raise BundleError(
            f"{path / name}: expected SHA-256 {expected.sha256}, found {found.sha256}; "
            "copy the bundle again"
        )
    return content


def _are_files_of_a_bundle(names: set[str]) -> bool:
    more = names - set(FILES) - set(OPTIONAL_FILES)
    return set(FILES) <= names and all(_EXEMPLAR_FILE.fullmatch(name) for name in more)


def _check_names(path: Path, manifest: Manifest, present: set[str]) -> None:
    named = set(manifest.files)
    if not _are_files_of_a_bundle(named):
        raise BundleError(
            f"{path / MANIFEST}: expected the files {sorted(FILES)}, and optionally "
            f"{sorted(OPTIONAL_FILES)} and {EXEMPLARS}/*; found {sorted(named)}"
        )
    for extra in sorted(present - named - {MANIFEST, SIGNATURE}):
        raise BundleError(
            f"{path / extra}: expected only files named in {MANIFEST}, found this one; remove it"
        )


def _present_in(path: Path) -> set[str]:
    """Names of everything in the folder; for the folder of exemplars, its files."""
    names = {entry.name for entry in path.iterdir()}
    exemplars = path / EXEMPLARS
    if exemplars.is_dir() and not exemplars.is_symlink() and any(exemplars.iterdir()):
        names.remove(EXEMPLARS)
        names |= {f"{EXEMPLARS}/{file.name}" for file in exemplars.iterdir()}
    return names


def _check_retrieval(path: Path, recipe: Recipe, names: set[str]) -> None:
    """Check that the files for the recipe's retrieval are there.

    Raises
    ------
    BundleError
        One is missing.
    """
    if not recipe.retrieves:
        return
    needs = ("encoder.onnx", f"{EXEMPLARS}/index.json", "control.onnx")
    for needed in needs:
        if needed not in names:
            raise BundleError(
                f"{path / 'recipe.json'}: retrieval.method is {recipe.retrieval.method!r}, which "
                f"needs {', '.join(needs)}; the bundle has no {needed}: release it with one, or "
                'with retrieval.method "slerp"'
            )


def _ood_model(path: Path, recipe: Recipe, contents: Mapping[str, bytes]) -> OodModel | None:
    """Read `domain.json` and compare it with what it was fitted with.

    Raises
    ------
    BundleError
        It was fitted with another head template, grid or encoder: its distances are not valid.
    """
    if "domain.json" not in contents:
        return None
    ood = parsed(OodModel, contents["domain.json"], path / "domain.json")
    compared = [
        ("template_sha256", ood.template_sha256, load_head_template().digest),
        ("pixel_mm", ood.pixel_mm, recipe.grid.pixel_mm),
    ]
    if ood.embedding is not None:
        encoder = hashlib.sha256(contents.get("encoder.onnx", b"")).hexdigest()
        compared.append(("embedding.encoder_sha256", ood.embedding.encoder_sha256, encoder))
    for name, expected, found in compared:
        if expected != found:
            raise BundleError(
                f"{path / 'domain.json'}: {name} is {expected}, found {found}; "
                "fit it again with `rebrain-train fit-ood`"
            )
    return ood


def _calibration(
    path: Path, manifest: Manifest, contents: Mapping[str, bytes]
) -> Calibration | None:
    """Read the calibration and compare it with the files it was made with.

    Raises
    ------
    BundleError
        Calibration or residual-scale head is there without the other; or the calibration belongs
        to other files.
    """
    if "calibration.json" not in contents and "scale.onnx" not in contents:
        return None
    for needed, beside in (("calibration.json", "scale.onnx"), ("scale.onnx", "calibration.json")):
        if needed not in contents:
            raise BundleError(
                f"{path}: the bundle has {beside} but no {needed}; calibrate it again"
            )
    file = path / "calibration.json"
    calibration = parsed(Calibration, contents["calibration.json"], file)
    fault = calibration.fault({name: each.sha256 for name, each in manifest.files.items()})
    if fault:
        raise BundleError(f"{file}: {fault}; calibrate the bundle again")
    return calibration
