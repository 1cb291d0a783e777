"""Measurement groups of the report (TID 1501): one of the whole volume, one of each slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import numpy as np
from highdicom import sr
from highdicom.sr import RelationshipTypeValues

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import UNVERIFIED
from rebrain_node.domain.volume import Guide, SliceKind
from rebrain_node.steps.write.codes import MILLIMETRE, NO_UNITS, Triple, concept, private
from rebrain_node.steps.write.result import Result, SliceRecord
from rebrain_node.steps.write.text import plain

POSITION_KIND: Final = private("POSITION-KIND", "How the slice came about")
KINDS: Final[Mapping[SliceKind, Triple]] = {
    "measured": private("MEASURED", "At the place of a measured slice"),
    "retrieved": private("RETRIEVED", "Guided by an exemplar"),
    "interpolated": private("INTERPOLATED", "Interpolated between measured slices"),
}
UNCERTAINTY: Final = private("MEAN-UNCERTAINTY", "Mean uncertainty in the head")
UNCERTAIN_SHARE: Final = private("UNCERTAIN-SHARE", "Share of the head above the limit")
LIMIT: Final = private("UNCERTAIN-LIMIT", "Limit on the uncertainty of a voxel")
COUNT: Final = private("SLICE-COUNT", "Number of slices of this kind")
DISTANCE: Final = private("DISTANCE", "Distance from the first measured slice")
ALPHA: Final = private("ALPHA", "Place between the neighbours, 0 below, 1 above")
SIMILARITY: Final = private("SIMILARITY", "Cosine similarity of the exemplar")
POSITION_DIFFERENCE: Final = private("POSITION-DIFF", "Exemplar minus target position")
TAU: Final = private("TAU", "Threshold on the similarity")
EXEMPLAR: Final = private("EXEMPLAR", "Keyed hash of the exemplar")
REASON: Final = private("REASON", "Why this kind")
SLICE_LIMIT: Final = private("SLICE-LIMIT", "Limit on the mean uncertainty of a slice")
TRUSTED: Final = private("TRUSTED", "Whether the slice is to be trusted")
QUANTITY: Final = private("UNCERTAINTY-IS", "What a value of the uncertainty is")
CALIBRATED: Final = private("CALIBRATION", "Calibration of the uncertainty")
COMPLETENESS: Final = private("COMPLETENESS", "Completeness verdict on the source series")
FINDING: Final = private("FINDING", "Finding with which the result is published")
NO_FINDING: Final = "none"
AUDIT_HEAD: Final = private("AUDIT-HEAD", "Head of the audit log")
INPUT_DIGEST: Final = private("INPUT-DIGEST", "SHA-256 of the source instances")
BUNDLE_DIGEST: Final = private("BUNDLE-DIGEST", "SHA-256 of the model bundle")
CONFIGURATION_DIGEST: Final = private("CONFIG-DIGEST", "SHA-256 of limits and settings")
ENGINE: Final = private("ENGINE", "Engine")
JOB: Final = private("JOB", "Digest of the job")
REVISION: Final = private("REVISION", "Revision of the result")
PREDECESSOR: Final = private("PREDECESSOR", "MR series of the revision before")
SYNTHETIC: Final = private("SYNTHETIC", "Synthetic, not for diagnosis")
_WHAT: Final = private("WHAT", "What the images are")
_LONG_TEXT: Final = 1024  #: characters, of a finding or reason
_Group: TypeAlias = sr.MeasurementsAndQualitativeEvaluations


def volume_group(result: Result) -> _Group:
    """Say of the whole result: algorithm, digests, verdict, findings, audit head, totals."""
    provenance, synthetic = result.provenance, result.synthetic
    counts = Counter(record.guide.kind for record in result.slices)
    inside = np.clip(synthetic.uncertainty[synthetic.head], 0.0, 1.0)
    limit, slice_limit = result.options.uncertain_above, synthetic.meaning.untrusted_above
    group = _Group(
        tracking_identifier=_tracking(result, "Whole volume"),
        algorithm_id=sr.AlgorithmIdentification(
            name=plain(provenance.bundle_name, _LONG_TEXT),
            version=plain(provenance.bundle_version, _LONG_TEXT),
            parameters=[
                f"bundle SHA-256 {provenance.bundle_digest}",
                plain(f"engine {provenance.engine_identity}", _LONG_TEXT),
                f"configuration SHA-256 {provenance.configuration_digest}",
            ],
        ),
        measurements=[
            _number(UNCERTAINTY, float(inside.mean(dtype=np.float64)) if inside.size else 0.0),
            _number(UNCERTAIN_SHARE, float((inside > limit).mean()) if inside.size else 0.0),
            _number(LIMIT, limit),
            *([] if slice_limit is None else [_number(SLICE_LIMIT, slice_limit)]),
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(concept(_WHAT), concept(SYNTHETIC)),
        ],
    )
    content = group[0].ContentSequence
    for kind, code in KINDS.items():
        content.append(_modified_count(code, counts[kind]))
    content.extend(_texts(result))
    return group


def slice_group(result: Result, record: SliceRecord) -> _Group:
    """Say of one slice how it came about, with its image and the measured ones it lies between."""
    guide = record.guide
    group = _Group(
        tracking_identifier=_tracking(result, f"Slice {record.index + 1}"),
        measurements=list(_slice_numbers(record)),
        qualitative_evaluations=[
            sr.QualitativeEvaluation(concept(POSITION_KIND), concept(KINDS[guide.kind]))
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(
                result.source.class_uids[neighbour.sop_instance_uid],
                neighbour.sop_instance_uid,
                None if neighbour.frame_number is None else [neighbour.frame_number],
            )
            for neighbour in record.neighbours
        ],
    )
    content = group[0].ContentSequence
    class_uid, instance_uid, frame = result.slice_name(record.index)
    content.append(
        sr.ImageContentItem(
            concept(SYNTHETIC),
            class_uid,
            instance_uid,
            referenced_frame_numbers=None if frame is None else [frame],
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
    )
    content.append(_text(REASON, guide.reason))
    if record.trusted is not None:
        content.append(_text(TRUSTED, "YES" if record.trusted else "NO"))
    if guide.exemplar is not None:
        content.append(_text(EXEMPLAR, guide.exemplar))
    return group


def _slice_numbers(record: SliceRecord) -> Iterable[sr.Measurement]:
    guide: Guide = record.guide
    yield _number(DISTANCE, guide.target.distance_mm, MILLIMETRE)
    yield _number(ALPHA, guide.target.alpha)
    yield _number(UNCERTAINTY, record.uncertainty)
    for name, value, unit in (
        (SIMILARITY, guide.similarity, NO_UNITS),
        (TAU, guide.tau, NO_UNITS),
        (POSITION_DIFFERENCE, guide.position_difference_mm, MILLIMETRE),
    ):
        if value is not None:
            yield _number(name, value, unit)


def _texts(result: Result) -> Iterable[sr.TextContentItem]:
    provenance, head = result.provenance, result.anchor
    yield _text(COMPLETENESS, UNVERIFIED)
    yield _text(CALIBRATED, result.label)
    yield _text(QUANTITY, result.synthetic.meaning.quantity)
    for finding in result.findings:
        yield _text(FINDING, _sentence(finding))
    if not result.findings:
        yield _text(FINDING, NO_FINDING)
    yield _text(JOB, provenance.digest)
    yield _text(REVISION, str(provenance.revision))
    if provenance.predecessor is not None:
        yield _text(PREDECESSOR, provenance.predecessor.mr_series_uid)
    yield _text(INPUT_DIGEST, provenance.input_digest)
    yield _text(BUNDLE_DIGEST, provenance.bundle_digest)
    yield _text(CONFIGURATION_DIGEST, provenance.configuration_digest)
    yield _text(ENGINE, provenance.engine_identity)
    if head is not None:
        yield _text(AUDIT_HEAD, f"{head.sequence} {head.sha256}")


def _sentence(finding: Finding) -> str:
    seen = "" if finding.value is None else f" (seen {finding.value}, limit {finding.limit})"
    return f"{finding.code}: {finding.sentence}{seen}"


def _tracking(result: Result, identifier: str) -> sr.TrackingIdentifier:
    return sr.TrackingIdentifier(
        uid=result.uids.other("SR", f"tracking {identifier}"), identifier=identifier
    )


def _number(name: Triple, value: float, unit: Triple = NO_UNITS) -> sr.Measurement:
    return sr.Measurement(name=concept(name), value=value, unit=concept(unit))


def _modified_count(kind: Triple, count: int) -> sr.NumContentItem:
    item = sr.NumContentItem(
        concept(COUNT), count, concept(NO_UNITS), relationship_type=RelationshipTypeValues.CONTAINS
    )
    item.ContentSequence = sr.ContentSequence(
        [
            sr.CodeContentItem(
                concept(POSITION_KIND), concept(kind), RelationshipTypeValues.HAS_CONCEPT_MOD
            )
        ]
    )
    return item


def _text(name: Triple, value: str) -> sr.TextContentItem:
    return sr.TextContentItem(
        concept(name), plain(value, _LONG_TEXT), RelationshipTypeValues.CONTAINS
    )
