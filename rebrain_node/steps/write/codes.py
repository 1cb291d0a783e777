"""Coded concepts of the objects: standard ones where the standard has one, else 99REBRAIN."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from rebrain_node.domain.completeness import MEANINGS, Completeness
from rebrain_node.domain.marks import CODING_SCHEME, CODING_SCHEME_NAME, MANUFACTURER
from rebrain_node.domain.volume import SliceKind

Triple = tuple[str, str, str]  #: code value, coding scheme designator, meaning


def _private(value: str, meaning: str) -> Triple:
    """Name a concept of our own scheme, which every object identifies."""
    return value, CODING_SCHEME, meaning


#: true of our images: the CT was resampled on the way (PS3.16 CID 7203)
SPATIAL_RESAMPLING: Final = ("113085", "DCM", "Spatial resampling")
#: PS3.16 CID 7202
SOURCE_IMAGE: Final = ("121322", "DCM", "Source image for image processing operation")
#: PS3.16 CID 7162
ARTIFICIAL_INTELLIGENCE: Final = ("123110", "DCM", "Artificial Intelligence")
#: PS3.16 CID 4031
HEAD: Final = ("69536005", "SCT", "Head")
#: PS3.16 CID 7150
SPATIAL_CONCEPT: Final = ("309825002", "SCT", "Spatial and Relational Concept")
CT: Final = ("CT", "DCM", "Computed Tomography")
MR: Final = ("MR", "DCM", "Magnetic Resonance")
NO_UNITS: Final = ("1", "UCUM", "no units")
MILLIMETRE: Final = ("mm", "UCUM", "mm")
HOUNSFIELD: Final = ("[hnsf'U]", "UCUM", "Hounsfield unit")

# Of the map and the segmentation.
EXPECTED_ERROR: Final = _private("EXPECTED-ABS-ERROR", "Expected absolute error")
HALF_WIDTH: Final = _private("INTERVAL-HALF-WIDTH", "Half-width of the conformal interval")
UNCERTAIN: Final = _private("UNCERTAIN", "Uncertainty above the limit")
OUTSIDE: Final = _private("OUTSIDE-HEAD", "Outside the head")

# Of the report.
MEASUREMENT_GROUP: Final = ("125007", "DCM", "Measurement Group")
TRACKING_IDENTIFIER: Final = ("112039", "DCM", "Tracking Identifier")
TRACKING_UID: Final = ("112040", "DCM", "Tracking Unique Identifier")
SOURCE_OF_MEASUREMENT: Final = ("121112", "DCM", "Source of Measurement")
POSITION_KIND: Final = _private("POSITION-KIND", "How the slice came about")
KINDS: Final[Mapping[SliceKind, Triple]] = {
    "measured": _private("MEASURED", "At an acquired CT slice position"),
    "retrieved": _private("RETRIEVED", "Guided by an exemplar"),
    "interpolated": _private("INTERPOLATED", "Interpolated between acquired slices"),
}
UNCERTAINTY: Final = _private("MEAN-UNCERTAINTY", "Mean uncertainty in the head")
UNCERTAIN_SHARE: Final = _private("UNCERTAIN-SHARE", "Share of the head above the limit")
LIMIT: Final = _private("UNCERTAIN-LIMIT", "Limit on the uncertainty of a voxel")
COUNT: Final = _private("SLICE-COUNT", "Number of slices of this kind")
DISTANCE: Final = _private("DISTANCE", "Distance from the first acquired slice")
ALPHA: Final = _private("ALPHA", "Place between the neighbours, 0 below, 1 above")
SIMILARITY: Final = _private("SIMILARITY", "Cosine similarity of the exemplar")
POSITION_DIFFERENCE: Final = _private("POSITION-DIFF", "Exemplar minus target position")
TAU: Final = _private("TAU", "Threshold on the similarity")
EXEMPLAR: Final = _private("EXEMPLAR", "Keyed hash of the exemplar")
REASON: Final = _private("REASON", "Why this kind")
SLICE_LIMIT: Final = _private("SLICE-LIMIT", "Limit on the mean uncertainty of a slice")
TISSUE_SHIFT: Final = _private("TISSUE-SHIFT", "Shift of soft tissue of the CT")
TRUSTED: Final = _private("TRUSTED", "Whether the slice is to be trusted")
QUANTITY: Final = _private("UNCERTAINTY-IS", "What a value of the uncertainty is")
CALIBRATED: Final = _private("CALIBRATION", "Calibration of the uncertainty")
COMPLETENESS: Final = _private("COMPLETENESS", "Completeness verdict on the source series")
VERDICTS: Final[Mapping[Completeness, Triple]] = {
    verdict: _private(verdict, meaning) for verdict, meaning in MEANINGS.items()
}
FINDING: Final = _private("FINDING", "Finding with which the result is published")
AUDIT_HEAD: Final = _private("AUDIT-HEAD", "Head of the audit log")
AUDIT_SIGNATURE: Final = _private("AUDIT-SIGNATURE", "Signature of the head of the audit log")
INPUT_DIGEST: Final = _private("INPUT-DIGEST", "SHA-256 of the source instances")
BUNDLE_DIGEST: Final = _private("BUNDLE-DIGEST", "SHA-256 of the model bundle")
CONFIGURATION_DIGEST: Final = _private("CONFIG-DIGEST", "SHA-256 of limits and settings")
ENGINE: Final = _private("ENGINE", "Engine")
JOB: Final = _private("JOB", "Digest of the job")
REVISION: Final = _private("REVISION", "Revision of the result")
PREDECESSOR: Final = _private("PREDECESSOR", "MR series of the revision before")
SYNTHETIC: Final = _private("SYNTHETIC", "Synthetic, not for diagnosis")
CONTENT: Final = _private("WHAT", "What the images are")
LISTED_IMAGE: Final = _private("LISTED-IMAGE", "Image of the library")


@cache
def concept(triple: Triple) -> CodedConcept:
    """Make a code item of (value, scheme, meaning); shared, so never to be changed."""
    value, scheme, meaning = triple
    return CodedConcept(value=value, scheme_designator=scheme, meaning=meaning)


def coding_scheme() -> Dataset:
    """Identify 99REBRAIN (PS3.3 C.12.1.1.14, CodingSchemeIdentificationSequence)."""
    return CodingSchemeIdentificationItem(
        designator=CODING_SCHEME,
        name=CODING_SCHEME_NAME,
        responsible_organization=MANUFACTURER,
    )
