"""Limits: which series may be synthesised, in numbers the clinical lead owns.

One TOML file holds them all (``conf/limits.toml``; the same ships as
``rebrain_node/defaults/limits.toml``). Every key must be present: a limit that nobody decided does
not exist. The digest goes into the audit and into the provenance of every result.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import CoreSchema, core_schema

from rebrain_node.domain.codes import CODES
from rebrain_node.domain.findings import Severity

#: codes for which the site may choose between refusing and publishing with a flag
POLICY_CODES = tuple(code for code, each in CODES.items() if each.policy == "site")

Range = tuple[float, float]


@dataclass(frozen=True)
class Bounds:
    """What a limit may be: its unit, the least and the greatest value."""

    unit: str
    low: float
    high: float

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Let pydantic check a number, or a range of numbers, by `low` and `high`."""
        number: CoreSchema = core_schema.float_schema(strict=True)
        if source is float:
            what, schema = "a number from", number
        else:
            what, schema = "[least, greatest] within", _pair(number)
        required = f"must be {what} {self.low} to {self.high} {self.unit}"

        def checked(value: Any, inner: ValidatorFunctionWrapHandler) -> float | Range:
            try:
                found: float | Range = inner(value)
            except ValidationError as error:
                raise ValueError(required) from error
            least, greatest = found if isinstance(found, tuple) else (found, found)
            if not (self.low <= least <= self.high and self.low <= greatest <= self.high):
                raise ValueError(required)
            if least > greatest:
                raise ValueError("the least must not exceed the greatest")
            return found

        return core_schema.no_info_wrap_validator_function(checked, schema)


def _pair(number: CoreSchema) -> CoreSchema:
    """Two numbers; a wrap validator gets them as a list, which a strict tuple would refuse."""
    return core_schema.tuple_schema([number, number], strict=False)


class _Table(BaseModel):
    """One table of the file: each key present, none unknown, no value of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SeriesLimits(_Table):
    """What the selection asks of a series, from headers alone."""

    plane: Literal["axial", "coronal", "sagittal"]
    plane_tolerance_deg: Annotated[float, Bounds("degrees", 5, 44)]  #: normal to the plane's axis
    thickness_mm: Annotated[Range, Bounds("mm", 0.3, 20)]
    prefer: Literal["thick", "thin"]
    slices: Annotated[Range, Bounds("slices", 3, 2000)]
    coverage_mm: Annotated[Range, Bounds("mm", 10, 600)]  #: below: INCOMPLETE; above: NOT-HEAD
    matrix: Annotated[Range, Bounds("pixels", 16, 8192)]  #: rows and columns
    field_of_view_mm: Annotated[Range, Bounds("mm", 20, 1000)]  #: rows or columns times spacing
    body_parts: tuple[str, ...]  #: words of Body Part Examined that mean a head; empty passes
    age_years: Annotated[Range, Bounds("years", 0, 130)]


class GeometryLimits(_Table):
    """How the slices of one series may lie."""

    tilt_deg: Annotated[float, Bounds("degrees", 0, 45)]  #: greatest gantry tilt
    direction_deg: Annotated[float, Bounds("degrees", 0.001, 5)]  #: between two slices
    step_mm: Annotated[float, Bounds("mm", 0.01, 1)]  #: how far steps of one group may differ
    displacement_mm: Annotated[float, Bounds("mm", 0.01, 2)]  #: off the line of the neighbours
    duplicate_mm: Annotated[float, Bounds("mm", 0.001, 1)]  #: closer than this is the same place
    pixel_spacing_mm: Annotated[float, Bounds("mm", 1e-6, 0.1)]  #: between two slices
    groups: Annotated[float, Bounds("groups", 1, 8)]  #: of one step and thickness each


class HounsfieldLimits(_Table):
    """Where the peaks of a true HU scale lie."""

    air_hu: Annotated[Range, Bounds("HU", -1100, -700)]  #: most frequent value around the head
    air_share: Annotated[float, Bounds("share of measured voxels", 0, 0.9)]  #: at least
    brain_hu: Annotated[Range, Bounds("HU", -50, 150)]  #: most frequent value inside the skull
    bone_hu: Annotated[Range, Bounds("HU", 100, 3000)]  #: median of the skull
    #: beyond it a value is wrapped or metal
    overflow_hu: Annotated[float, Bounds("HU", 1500, 32767)]
    overflow_share: Annotated[float, Bounds("share of measured voxels", 0, 0.1)]  #: at most


class HeadLimits(_Table):
    """What makes a head, a whole one, an adult's, with its skull closed."""

    #: bone seen from within, median
    ring_share: Annotated[float, Bounds("share of directions", 0.1, 1)]
    #: height over which a closed skull is seen
    ring_height_mm: Annotated[float, Bounds("mm", 5, 150)]
    #: inside the skull, as far as scanned
    brain_volume_ml: Annotated[Range, Bounds("ml", 100, 3000)]
    #: between fluid, grey and white, at least
    tissue_spread_hu: Annotated[float, Bounds("HU", 0.1, 20)]
    #: widest gap of the vault that is still closed
    opening_mm: Annotated[float, Bounds("mm", 5, 200)]
    opening_cm2: Annotated[float, Bounds("cm2", 0, 100)]  #: at most so much of wider gaps
    adult_section_cm2: Annotated[float, Bounds("cm2", 20, 250)]  #: inside of the skull, at least
    #: of the top slice
    vertex_share: Annotated[float, Bounds("share of the largest section", 0, 1)]
    #: inside the skull in the uppermost slice of a whole head, at most
    top_cm2: Annotated[float, Bounds("cm2", 0, 250)]
    #: brain in the lowest slice of a head scanned to its base, at most
    base_cm2: Annotated[float, Bounds("cm2", 0, 250)]
    #: depth of the base of the skull below the top of the head; deeper nothing is missing
    base_depth_mm: Annotated[float, Bounds("mm", 0, 250)]
    #: of the smallest slice
    taper_share: Annotated[float, Bounds("share of the largest section", 0, 1)]
    #: an end of the series up to the first is the top of a head, from the second on it is cut
    dome_share: Annotated[Range, Bounds("share of the largest section", 0, 1)]
    #: of the face from the front: above the first OOD, above the second GEOM-ORIENTATION
    turn_deg: Annotated[Range, Bounds("degrees", 10, 180)]


class ArtefactLimits(_Table):
    """Contrast, metal, noise and motion as seen in the pixels."""

    contrast_hu: Annotated[Range, Bounds("HU", 40, 1000)]  #: of vessels with contrast
    #: at most so much of it inside the skull
    contrast_ml: Annotated[float, Bounds("ml", 0.01, 100)]
    metal_hu: Annotated[float, Bounds("HU", 1500, 30000)]
    metal_mm3: Annotated[float, Bounds("mm3", 0, 10000)]  #: at most
    noise_hu: Annotated[float, Bounds("HU", 1, 100)]  #: standard deviation in the brain, at most
    jump_mm: Annotated[float, Bounds("mm", 0.5, 50)]  #: of the skull between slices, at most
    edge_hu: Annotated[float, Bounds("HU", 0, 1050)]  #: fall from scalp to air, at least


class DomainLimits(_Table):
    """What the model has never seen."""

    bright_hu: Annotated[Range, Bounds("HU", 40, 200)]  #: as bright as fresh blood
    bright_ml: Annotated[float, Bounds("ml", 0, 500)]  #: at most so much of it inside the skull
    fluid_hu: Annotated[float, Bounds("HU", 0, 30)]  #: darker than this is fluid or dead tissue
    fluid_share: Annotated[float, Bounds("share of the brain", 0.01, 1)]  #: at most


class KernelRule(_Table):
    """Reconstruction kernels of some vendors, as full-match regular expressions."""

    vendors: tuple[str, ...]  #: how Manufacturer begins, upper case
    soft: tuple[str, ...]
    bone: tuple[str, ...]

    @field_validator("soft", "bone")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return patterns


class Limits(_Table):
    """All limits of a node."""

    series: SeriesLimits
    geometry: GeometryLimits
    hounsfield: HounsfieldLimits
    head: HeadLimits
    artefacts: ArtefactLimits
    domain: DomainLimits
    kernels: tuple[KernelRule, ...]
    #: for each of ``POLICY_CODES``: refuse or flag; a file may be older than a code
    policy: Mapping[str, Severity]
    _content: str = PrivateAttr()

    @field_validator("policy")
    @classmethod
    def _names_each_code(cls, policy: Mapping[str, Severity]) -> Mapping[str, Severity]:
        faults = [f"policy.{code} is unknown" for code in sorted(policy.keys() - set(POLICY_CODES))]
        faults += [
            f"policy.{code} is missing"
            for code in POLICY_CODES
            if code not in policy and CODES[code].unless_named is None
        ]
        if faults:
            raise ValueError(f"{', '.join(faults)}; each of {', '.join(POLICY_CODES)} is needed")
        return policy

    @classmethod
    def from_json(cls, content: str) -> Self:
        """Read limits from canonical JSON (sorted keys, no blanks), of which the digest is made.

        Raises `pydantic.ValidationError` naming each key at fault.
        """
        limits = cls.model_validate_json(content)
        limits._content = content  # noqa: SLF001 - its own
        return limits

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical content, hexadecimal: comments and order do not count."""
        return hashlib.sha256(self._content.encode()).hexdigest()

    def severity(self, code: str) -> Severity:
        """Say what a finding of this code does: refuse, unless the site's policy says flag."""
        known = CODES.get(code)
        return self.policy.get(code, (known and known.unless_named) or "refuse")
