"""Limits: which series may be synthesised, in numbers the clinical lead owns.

One TOML file holds them all (``conf/limits.toml``; the same ships as
``rebrain_node/defaults/limits.toml``). Every key must be present: a limit that nobody decided does
not exist. The digest goes into the audit and into the provenance of every result.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rebrain_node.domain.findings import Severity
from rebrain_node.errors import SettingsError

#: codes for which the site may choose between refusing and publishing with a flag
POLICY_CODES = (
    "AGE", "CONTRAST", "CRANIECTOMY", "INCOMPLETE", "KERNEL-UNKNOWN", "METAL", "MOTION", "NOISE",
    "OOD", "UNCERTAIN",
)  # fmt: skip

Range = tuple[float, float]
Part = TypeVar("Part")


@dataclass(frozen=True)
class Within:
    """What a limit may be: its unit, the least and the greatest value."""

    unit: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class SeriesLimits:
    """What the selection asks of a series, from headers alone."""

    plane: Literal["axial", "coronal", "sagittal"]
    plane_tolerance_deg: Annotated[float, Within("degrees", 5, 44)]  #: normal to the plane's axis
    thickness_mm: Annotated[Range, Within("mm", 0.3, 20)]
    prefer: Literal["thick", "thin"]
    slices: Annotated[Range, Within("slices", 3, 2000)]
    coverage_mm: Annotated[Range, Within("mm", 10, 600)]  #: below: INCOMPLETE; above: NOT-HEAD
    matrix: Annotated[Range, Within("pixels", 16, 8192)]  #: rows and columns
    field_of_view_mm: Annotated[Range, Within("mm", 20, 1000)]  #: rows or columns times spacing
    body_parts: tuple[str, ...]  #: words of Body Part Examined that mean a head; empty passes
    age_years: Annotated[Range, Within("years", 0, 130)]


@dataclass(frozen=True, kw_only=True)
class GeometryLimits:
    """How the slices of one series may lie."""

    tilt_deg: Annotated[float, Within("degrees", 0, 45)]  #: greatest gantry tilt
    direction_deg: Annotated[float, Within("degrees", 0.001, 5)]  #: between two slices
    step_mm: Annotated[float, Within("mm", 0.01, 1)]  #: how far steps of one group may differ
    displacement_mm: Annotated[float, Within("mm", 0.01, 2)]  #: off the line of the neighbours
    duplicate_mm: Annotated[float, Within("mm", 0.001, 1)]  #: closer than this is the same place
    pixel_spacing_mm: Annotated[float, Within("mm", 1e-6, 0.1)]  #: between two slices
    groups: Annotated[float, Within("groups", 1, 8)]  #: of one step and thickness each


@dataclass(frozen=True, kw_only=True)
class HounsfieldLimits:
    """Where the peaks of a true HU scale lie."""

    air_hu: Annotated[Range, Within("HU", -1100, -700)]  #: most frequent value around the head
    air_share: Annotated[float, Within("share of measured voxels", 0, 0.9)]  #: at least
    brain_hu: Annotated[Range, Within("HU", -50, 150)]  #: most frequent value inside the skull
    bone_hu: Annotated[Range, Within("HU", 100, 3000)]  #: median of the skull
    #: beyond it a value is wrapped or metal
    overflow_hu: Annotated[float, Within("HU", 1500, 32767)]
    overflow_share: Annotated[float, Within("share of measured voxels", 0, 0.1)]  #: at most


@dataclass(frozen=True, kw_only=True)
class HeadLimits:
    """What makes a head, a whole one, an adult's, with its skull closed."""

    #: bone seen from within, median
    ring_share: Annotated[float, Within("share of directions", 0.1, 1)]
    #: height over which a closed skull is seen
    ring_height_mm: Annotated[float, Within("mm", 5, 150)]
    #: inside the skull, as far as scanned
    brain_volume_ml: Annotated[Range, Within("ml", 100, 3000)]
    #: between fluid, grey and white, at least
    tissue_spread_hu: Annotated[float, Within("HU", 0.1, 20)]
    #: widest gap of the vault that is still closed
    opening_mm: Annotated[float, Within("mm", 5, 200)]
    opening_cm2: Annotated[float, Within("cm2", 0, 100)]  #: at most so much of wider gaps
    adult_section_cm2: Annotated[float, Within("cm2", 20, 250)]  #: inside of the skull, at least
    #: of the top slice
    vertex_share: Annotated[float, Within("share of the largest section", 0, 1)]
    #: of the smallest slice
    taper_share: Annotated[float, Within("share of the largest section", 0, 1)]
    #: an end of the series up to the first is the top of a head, from the second on it is cut
    dome_share: Annotated[Range, Within("share of the largest section", 0, 1)]
    #: of the face from the front: above the first OOD, above the second GEOM-ORIENTATION
    turn_deg: Annotated[Range, Within("degrees", 10, 180)]


@dataclass(frozen=True, kw_only=True)
class ArtefactLimits:
    """Contrast, metal, noise and motion as seen in the pixels."""

    contrast_hu: Annotated[Range, Within("HU", 40, 1000)]  #: of vessels with contrast
    #: at most so much of it inside the skull
    contrast_ml: Annotated[float, Within("ml", 0.01, 100)]
    metal_hu: Annotated[float, Within("HU", 1500, 30000)]
    metal_mm3: Annotated[float, Within("mm3", 0, 10000)]  #: at most
    noise_hu: Annotated[float, Within("HU", 1, 100)]  #: standard deviation in the brain, at most
    jump_mm: Annotated[float, Within("mm", 0.5, 50)]  #: of the skull between slices, at most
    edge_hu: Annotated[float, Within("HU", 0, 1050)]  #: fall from scalp to air, at least


@dataclass(frozen=True, kw_only=True)
class DomainLimits:
    """What the model has never seen."""

    bright_hu: Annotated[Range, Within("HU", 40, 200)]  #: as bright as fresh blood
    bright_ml: Annotated[float, Within("ml", 0, 500)]  #: at most so much of it inside the skull
    fluid_hu: Annotated[float, Within("HU", 0, 30)]  #: darker than this is fluid or dead tissue
    fluid_share: Annotated[float, Within("share of the brain", 0.01, 1)]  #: at most


@dataclass(frozen=True, kw_only=True)
class KernelRule:
    """Reconstruction kernels of some vendors, as full-match regular expressions."""

    vendors: tuple[str, ...]  #: how Manufacturer begins, upper case
    soft: tuple[str, ...]
    bone: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """All limits of a node."""

    series: SeriesLimits
    geometry: GeometryLimits
    hounsfield: HounsfieldLimits
    head: HeadLimits
    artefacts: ArtefactLimits
    domain: DomainLimits
    kernels: tuple[KernelRule, ...]
    policy: Mapping[str, Severity]  #: for each of ``POLICY_CODES``: refuse or flag
    content: str = field(repr=False)  #: canonical JSON of all of the above

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical content, hexadecimal: comments and order do not count."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    def severity(self, code: str) -> Severity:
        """Say what a finding of this code does: refuse, unless the site's policy says flag."""
        return self.policy.get(code, "refuse")


_PARTS: Mapping[str, type[Any]] = {
    "series": SeriesLimits,
    "geometry": GeometryLimits,
    "hounsfield": HounsfieldLimits,
    "head": HeadLimits,
    "artefacts": ArtefactLimits,
    "domain": DomainLimits,
}


def load_limits(text: str) -> Limits:
    """Read limits from TOML.

    Raises
    ------
    SettingsError
        The text is not TOML, or a key is missing, unknown or outside its range; the message
        names key, value and range.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"limits: not TOML: {error}") from error
    _exact_keys("limits", content, (*_PARTS, "kernels", "policy"))
    parts: dict[str, Any] = {
        name: _part(name, kind, content[name]) for name, kind in _PARTS.items()
    }
    return Limits(
        **parts,
        kernels=_kernels(content["kernels"]),
        policy=_policy(content["policy"]),
        content=json.dumps(content, sort_keys=True, separators=(",", ":")),
    )


def shipped_limits() -> Limits:
    """Read the limits that ship with the package."""
    folder = resources.files("rebrain_node") / "defaults"
    return load_limits((folder / "limits.toml").read_text(encoding="utf-8"))


def _exact_keys(name: str, value: object, known: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise SettingsError(f"limits: {name} is {value!r}; it must be a table [{name}]")
    for key in sorted(value.keys() - set(known)):
        raise SettingsError(f"limits: {name}.{key} is unknown; known are {', '.join(known)}")
    for key in known:
        if key not in value:
            raise SettingsError(f"limits: {name}.{key} is missing; copy it from the shipped limits")


def _part(name: str, kind: type[Part], value: Any) -> Part:
    hints = get_type_hints(kind, include_extras=True)
    _exact_keys(name, value, tuple(hints))
    return kind(**{key: _checked(f"{name}.{key}", value[key], hint) for key, hint in hints.items()})


def _checked(key: str, value: Any, hint: Any) -> float | Range | str | tuple[str, ...]:
    if get_origin(hint) is Literal:
        return _word(key, value, get_args(hint))
    if get_origin(hint) is tuple:
        return _texts(key, value)
    kind, within = get_args(hint)
    return _number(key, value, within) if kind is float else _range(key, value, within)


def _number(key: str, value: Any, within: Within) -> float:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not within.low <= value <= within.high:
        raise SettingsError(
            f"limits: {key} is {value!r}; it must be a number from {within.low} to "
            f"{within.high} {within.unit}"
        )
    return float(value)


def _range(key: str, value: Any, within: Within) -> Range:
    if not isinstance(value, list) or len(value) != 2:
        raise SettingsError(
            f"limits: {key} is {value!r}; it must be [least, greatest] within {within.low} to "
            f"{within.high} {within.unit}"
        )
    least, greatest = (_number(key, number, within) for number in value)
    if least > greatest:
        raise SettingsError(f"limits: {key} is {value!r}; the least must not exceed the greatest")
    return least, greatest


def _word(key: str, value: Any, words: tuple[str, ...]) -> str:
    if value not in words:
        raise SettingsError(f"limits: {key} is {value!r}; it must be {' or '.join(words)}")
    return str(value)


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise SettingsError(f"limits: {key} is {value!r}; it must be a list of texts")
    return tuple(value)


def _policy(value: Any) -> Mapping[str, Severity]:
    _exact_keys("policy", value, POLICY_CODES)
    for code, word in value.items():
        _word(f"policy.{code}", word, get_args(Severity))
    return dict(value)


def _kernels(value: Any) -> tuple[KernelRule, ...]:
    if not isinstance(value, list):
        raise SettingsError(f"limits: kernels is {value!r}; it must be tables [[kernels]]")
    return tuple(_kernel(f"kernels[{place}]", rule) for place, rule in enumerate(value))


def _kernel(name: str, value: Any) -> KernelRule:
    _exact_keys(name, value, ("vendors", "soft", "bone"))
    rule = KernelRule(**{key: _texts(f"{name}.{key}", words) for key, words in value.items()})
    for pattern in (*rule.soft, *rule.bone):
        try:
            re.compile(pattern)
        except re.error as error:
            raise SettingsError(
                f"limits: {name}: {pattern!r} is not a regular expression: {error}"
            ) from error
    return rule
