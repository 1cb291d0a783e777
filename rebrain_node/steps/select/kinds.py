"""Rules on what kind of images a series holds: CT, slices, original, in HU, at one time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sized

import numpy as np
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from rebrain_node.domain.findings import Finding, Severity
from rebrain_node.domain.image_type import is_localizer, is_original, names_projection, shown
from rebrain_node.domain.limits import Limits
from rebrain_node.steps.select.series import Series

_CT_SOP_CLASSES = frozenset(
    {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
)
#: axis of the patient (LPS) along which the slices of a plane follow each other
_AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
#: kinds of Image Type that are computed from several images, and what they show
_NO_SLICES = {
    "projection": "projections of many slices on one",
    "difference": "differences of two scans",
    "statistic": "averages or other statistics of several images",
    "blend": "blends of two energies that change the contrast of the brain",
    "capture": "captures of a screen",
}
#: kinds whose values are no HU, or that are no series of a head
_NO_HEAD = {
    "map": "maps of perfusion or of a material, not values in HU",
    "monitoring": "images that watch at one place for the arrival of a bolus",
}
#: so many images at half of the positions are a series in time; two may be two passes
_TIMES = 3
#: distances along the normal are rounded to this when positions are compared
_SAME_PLACE_MM = 0.1


def judge_modality(series: Series, _: Limits) -> Iterator[Finding]:
    """Find what is no CT image object."""
    modalities = sorted({f.modality or "none" for f in series.frames} - {"CT"})
    classes = sorted({f.sop_class_uid or "" for f in series.frames} - _CT_SOP_CLASSES)
    if modalities:
        yield Finding(
            code="MODALITY",
            sentence=(
                f"Modality (0008,0060) is {shown(modalities[0])}, not CT; only CT series are "
                "synthesised"
            ),
            value=shown(modalities[0]),
            limit="CT",
        )
    elif classes:
        name = UID(classes[0]).name if classes[0] else "no class"
        known = name if name != classes[0] else "a class that is not known"
        yield Finding(
            code="MODALITY",
            sentence=(
                f"the series holds objects other than CT images ({known}), e.g. a secondary "
                "capture, a dose page or raw data; send the CT images as their own series"
            ),
            value=known,
            limit="CT Image Storage",
        )


def judge_localizer(series: Series, _: Limits) -> Iterator[Finding]:
    """Find series of scouts, and tell of scouts that were set aside."""
    localizers = sum(is_localizer(f.image_type) for f in series.frames)
    if localizers:
        yield Finding(
            code="LOCALIZER",
            sentence=(
                f"{localizers} of {len(series.frames)} images of the series "
                f"{'is a localizer' if localizers == 1 else 'are localizers'} (scout, topogram; by "
                "Image Type), not slices; nothing is to be done if the study has an axial series"
            ),
            value=float(localizers),
            limit=0.0,
        )
    scouts = len(series.instances) - len(series.axial_instances)
    if scouts:
        yield Finding(
            code="LOCALIZER-SET-ASIDE",
            sentence=(
                f"{scouts} of {len(series.instances)} images of the series "
                f"{'is a scout' if scouts == 1 else 'are scouts'} by Image Type and left out; "
                f"the other {len(series.axial_instances)} are judged and used"
            ),
            severity="flag",
            value=float(scouts),
            limit=0.0,
        )


def judge_derived(series: Series, limits: Limits) -> Iterator[Finding]:
    """Find images computed from others; axial reformats are left to the site's policy."""
    kind = series.image_type
    if kind is not None and kind.kind in _NO_SLICES:
        yield _computed(
            f"Image Type says {kind.value}: the images are {_NO_SLICES[kind.kind]}; send the "
            "plain axial series",
            value=kind.value,
        )
    elif not series.original and (kind is None or kind.kind not in _NO_HEAD):
        yield _reformat(series, limits)


def _reformat(series: Series, limits: Limits) -> Finding:
    computed = next(f for f in series.frames if not is_original(f.image_type))
    value = "\\".join(shown(term) for term in computed.image_type[:4])
    projection = names_projection(computed.series_description or "")
    if not value:
        return _computed(
            "Image Type (0008,0008) is absent: whether the images are measured slices is not "
            "known; send the series from the scanner",
            value="absent",
        )
    says = f"the images were computed from others (Image Type is {value})"
    if projection:
        return _computed(
            f"{says}, and the description says {projection}: they are no slices; send the axial "
            "series that they were made from",
            value=value,
        )
    angle = plane_angle_deg(series, limits)
    if angle is None or angle > limits.series.plane_tolerance_deg:
        return _computed(
            f"{says} and are not {limits.series.plane}; send the {limits.series.plane} series",
            value=value,
        )
    if series.kernel_kind(limits) != "soft":
        return _computed(
            f"{says}, and their kernel is not known to be soft (kernels of limits.toml); send the "
            "original soft-tissue series",
            value=value,
        )
    return _computed(
        f"{says}: a reformat ({limits.series.plane}) with a soft kernel, which is taken only where "
        "policy.DERIVED of limits.toml is flag and no original series of the study will do",
        value=value,
        severity=limits.severity("DERIVED"),
    )


def _computed(sentence: str, *, value: str, severity: Severity = "refuse") -> Finding:
    return Finding(
        code="DERIVED",
        sentence=sentence,
        severity=severity,
        value=value,
        limit="ORIGINAL\\PRIMARY",
    )


def judge_image_type(series: Series, _: Limits) -> Iterator[Finding]:
    """Find images whose type names no plain slices in HU."""
    if any(f.presentation_intent == "FOR PROCESSING" for f in series.frames):
        yield Finding(
            code="IMAGE-TYPE",
            sentence=(
                "Presentation Intent Type (0008,0068) says FOR PROCESSING: the images are not "
                "meant to be read; send the series for presentation"
            ),
            value="FOR PROCESSING",
            limit="FOR PRESENTATION",
        )
    kind = series.image_type
    if kind is not None and kind.kind in _NO_HEAD:
        yield Finding(
            code="IMAGE-TYPE",
            sentence=(
                f"Image Type says {kind.value}: the images are {_NO_HEAD[kind.kind]}; send the "
                "plain axial series of the head"
            ),
            value=kind.value,
            limit="slices in HU",
        )


def judge_energy(series: Series, limits: Limits) -> Iterator[Finding]:
    """Find images of one energy, or of a dual-energy scan."""
    kind = series.image_type
    if kind is None:
        return
    if kind.kind == "monoenergetic":
        yield Finding(
            code="SPECTRAL",
            sentence=(
                f"Image Type says {kind.value}: the images show one energy of a dual-energy scan, "
                "at which the brain has other values than at a tube voltage; send the conventional "
                "or mixed series, or let policy.SPECTRAL of limits.toml flag such series"
            ),
            severity=limits.severity("SPECTRAL"),
            value=kind.value,
            limit="one tube voltage",
        )
    elif kind.kind == "dual":
        yield Finding(
            code="SPECTRAL",
            sentence=(
                f"Image Type says {kind.value}: the images come from a dual-energy scan; the model "
                "learned images of one tube voltage"
            ),
            severity="flag",
            value=kind.value,
            limit="one tube voltage",
        )


def judge_temporal(series: Series, _: Limits) -> Iterator[Finding]:
    """Find positions that were imaged several times."""
    places = Counter(
        round(f.distance_mm / _SAME_PLACE_MM) for f in series.listed if f.distance_mm is not None
    )
    times = sorted(places.values())
    if times and times[len(times) // 2] >= _TIMES:
        yield Finding(
            code="TEMPORAL",
            sentence=(
                f"{_imaged(places, times[-1])}: a series in time (CT perfusion, dynamic or "
                "monitoring), not one head; send the series before contrast"
            ),
            value=float(times[-1]),
            limit=float(_TIMES - 1),
        )


def _imaged(places: Sized, times: int) -> str:
    if len(places) == 1:
        return (
            f"all {times} slices have one position (if they do not, the position was lost on the "
            "way; send the original CT)"
        )
    return f"{len(places)} positions were imaged {times} times, one after the other"


def plane_angle_deg(series: Series, limits: Limits) -> float | None:
    """Greatest angle between the normal of a slice and that of the plane, degrees."""
    normals = [f.normal for f in series.frames if f.normal is not None]
    if not normals:
        return None
    cosines = np.abs(np.array(normals)[:, _AXES[limits.series.plane]])
    return float(np.degrees(np.arccos(min(1.0, float(cosines.min())))))
