"""The provenance report: Comprehensive 3D SR in the pattern of TID 1500 (PS3.16).

A summary in sentences stands first, because viewers show a report from its beginning; a number is
shown with three significant digits and kept in full beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import numpy as np
from highdicom import sr
from highdicom.sr import RelationshipTypeValues
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.uid import Comprehensive3DSRStorage

from rebrain_node.domain import marks
from rebrain_node.domain.findings import Finding
from rebrain_node.steps.write import codes
from rebrain_node.steps.write.codes import HOUNSFIELD, MILLIMETRE, NO_UNITS, Triple, concept
from rebrain_node.steps.write.content_items import (
    HAS_OBS_CONTEXT,
    code_item,
    container_item,
    image_item,
    number_item,
    text_item,
    uid_item,
)
from rebrain_node.steps.write.encoding import plain
from rebrain_node.steps.write.identity import derived_uid
from rebrain_node.steps.write.references import evidence, listed, reference
from rebrain_node.steps.write.result import Result, SliceRecord, stamp

NO_FINDING: Final = "none"
_LONG_TEXT: Final = 1024  #: characters, of a finding or reason
_CONTAINS: Final = RelationshipTypeValues.CONTAINS
_Group: TypeAlias = sr.MeasurementsAndQualitativeEvaluations


def write_report(
    result: Result, images: Sequence[Dataset], companions: Sequence[Dataset]
) -> Dataset:
    """Build the report over the MR series and the companions written so far; unverified."""
    content = sr.MeasurementReport(
        observation_context=_observer(result),
        procedure_reported=concept(marks.DERIVATION_CODE),
        imaging_measurements=[_volume_group(result)],
        title=standard.DCM.ImagingMeasurementReport,
    )
    dataset = sr.Comprehensive3DSR(
        evidence=[*map(listed, [*images, *companions]), *_source_instances(result)],
        content=content,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=f"{marks.SERIES_DESCRIPTION_WORD} provenance of MR T1",
        **result.names("SR"),
    )
    # Once built, highdicom copies the whole tree; so the long parts are put in afterwards.
    dataset.ContentSequence[-1:-1] = [_summary(result), _library(result, images)]
    groups = dataset.ContentSequence[-1]
    for container in (groups, *groups.ContentSequence):
        container.ContinuityOfContent = "SEPARATE"
    slices = [_slice_group(result, record) for record in result.slices]
    groups["ContentSequence"].value = [*groups.ContentSequence, *slices]
    before = result.provenance.predecessor
    if before is not None and before.report_uid is not None:
        report = reference(Comprehensive3DSRStorage, before.report_uid)
        dataset.PredecessorDocumentsSequence = [
            evidence(result.source.study_instance_uid, before.report_series_uid, [report])
        ]
    stamp(dataset, result)
    return dataset


def _source_instances(result: Result) -> Iterable[Dataset]:
    for instance_uid, class_uid in result.source.class_uids.items():
        item = Dataset()
        item.SOPClassUID, item.SOPInstanceUID = class_uid, instance_uid
        item.StudyInstanceUID = result.source.study_instance_uid
        item.SeriesInstanceUID = result.source.series_instance_uid
        yield item


def _observer(result: Result) -> sr.ObservationContext:
    """Observer is a device: nobody has looked at this report (TID 1004)."""
    digest = result.provenance.bundle_digest
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("bundle", digest),
        manufacturer_name=marks.MANUFACTURER,
        model_name=marks.MODEL_NAME,
        serial_number=digest,
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=standard.DCM.Device, observer_identifying_attributes=device
        )
    )


def _library(result: Result, images: Sequence[Dataset]) -> sr.ContainerContentItem:
    """Image library (TID 1600): source and MR series, one group each, described once a group."""
    source = ((class_uid, uid) for uid, class_uid in result.source.class_uids.items())
    mr = ((str(image.SOPClassUID), str(image.SOPInstanceUID)) for image in images)
    groups = [_library_group(result, codes.CT, source), _library_group(result, codes.MR, mr)]
    return _container(standard.DCM.ImageLibrary, groups)


def _library_group(
    result: Result, modality: Triple, references: Iterable[tuple[str, str]]
) -> sr.ContainerContentItem:
    context = RelationshipTypeValues.HAS_ACQ_CONTEXT
    frame_uid = result.synthetic.prepared.frame_of_reference_uid
    items = [
        sr.CodeContentItem(standard.DCM.Modality, concept(modality), context),
        sr.UIDRefContentItem(standard.DCM.FrameOfReferenceUID, frame_uid, context),
        *(_image(codes.LISTED_IMAGE, class_uid, uid) for class_uid, uid in references),
    ]
    return _container(standard.DCM.ImageLibraryGroup, items)


def _summary(result: Result) -> sr.TextContentItem:
    """Say in sentences what the images are and how far they are to be trusted."""
    provenance, counts = result.provenance, _kinds(result)
    mean, share = _mean_and_share(result)
    codes_found = sorted({finding.code for finding in result.findings})
    text = (
        f"SYNTHETIC - NOT FOR DIAGNOSIS. The model {provenance.bundle_name} "
        f"{provenance.bundle_version} computed these T1-like images from a CT; no MR scanner "
        f"acquired them. {len(result.slices)} slices: {counts['measured']} at an acquired CT slice "
        f"position, {counts['retrieved']} between such slices and guided by an exemplar, "
        f"{counts['interpolated']} between them and interpolated. Mean uncertainty in the head: "
        f"{mean:.3g}; {100.0 * share:.3g} % of the head lies above the limit of "
        f"{result.options.uncertain_above:.3g}. {_trust(result.slices)} "
        f"Findings: {', '.join(codes_found) or 'none'}."
    )
    return sr.TextContentItem(standard.DCM.Summary, plain(text, _LONG_TEXT), _CONTAINS)


def _trust(slices: Sequence[SliceRecord]) -> str:
    if all(record.trusted is None for record in slices):
        return "The bundle sets no limit above which a slice is not to be trusted."
    untrusted = [str(record.index + 1) for record in slices if record.trusted is False]
    return f"Slices not to be trusted: {', '.join(untrusted) or 'none'}."


def _kinds(result: Result) -> Counter[str]:
    return Counter(record.guide.kind for record in result.slices)


def _mean_and_share(result: Result) -> tuple[float, float]:
    """Mean uncertainty in the head, and the share of the head above the limit; 0 without head."""
    inside = np.clip(result.synthetic.uncertainty[result.synthetic.head], 0.0, 1.0)
    if not inside.size:
        return 0.0, 0.0
    above = (inside > result.options.uncertain_above).mean()
    return float(inside.mean(dtype=np.float64)), float(above)


def _volume_group(result: Result) -> _Group:
    """Say of the whole result: algorithm, digests, verdict, findings, audit head, totals."""
    provenance, counts = result.provenance, _kinds(result)
    limit, slice_limit = result.options.uncertain_above, result.synthetic.meaning.untrusted_above
    mean, share = _mean_and_share(result)
    tissue = result.synthetic.prepared.tissue
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
        measurements=list(
            _numbers(
                (codes.UNCERTAINTY, mean, NO_UNITS),
                (codes.UNCERTAIN_SHARE, share, NO_UNITS),
                (codes.LIMIT, limit, NO_UNITS),
                (codes.SLICE_LIMIT, slice_limit, NO_UNITS),
                (codes.TISSUE_SHIFT, None if tissue is None else tissue.shift_hu, HOUNSFIELD),
            )
        ),
        qualitative_evaluations=[
            sr.QualitativeEvaluation(concept(codes.CONTENT), concept(codes.SYNTHETIC)),
            sr.QualitativeEvaluation(
                concept(codes.COMPLETENESS), concept(codes.VERDICTS[provenance.completeness])
            ),
        ],
    )
    content = group[0].ContentSequence
    for kind, code in codes.KINDS.items():
        content.append(_count(code, counts[kind]))
    content.extend(_texts(result))
    return group


def _slice_group(result: Result, record: SliceRecord) -> Dataset:
    """Say of one slice how it came about, with its image and the measured ones it lies between."""
    guide = record.guide
    identifier = f"Slice {record.index + 1}"
    numbers = (
        (codes.DISTANCE, guide.target.distance_mm, MILLIMETRE),
        (codes.ALPHA, guide.target.alpha, NO_UNITS),
        (codes.UNCERTAINTY, record.uncertainty, NO_UNITS),
        (codes.SIMILARITY, guide.similarity, NO_UNITS),
        (codes.TAU, guide.tau, NO_UNITS),
        (codes.POSITION_DIFFERENCE, guide.position_difference_mm, MILLIMETRE),
    )
    content = [
        text_item(codes.TRACKING_IDENTIFIER, identifier, HAS_OBS_CONTEXT),
        uid_item(codes.TRACKING_UID, _tracking_uid(result, identifier), HAS_OBS_CONTEXT),
        *(number_item(name, n, unit) for name, n, unit in numbers if n is not None),
        code_item(codes.POSITION_KIND, codes.KINDS[guide.kind]),
    ]
    for neighbour in record.neighbours:
        uid, frame = neighbour.sop_instance_uid, neighbour.frame_number
        class_uid = result.source.class_uids[uid]
        content.append(image_item(codes.SOURCE_OF_MEASUREMENT, class_uid, uid, frame))
    content.append(image_item(codes.SYNTHETIC, *result.slice_name(record.index)))
    content.append(text_item(codes.REASON, plain(guide.reason, _LONG_TEXT)))
    if record.trusted is not None:
        content.append(text_item(codes.TRUSTED, "YES" if record.trusted else "NO"))
    if guide.exemplar is not None:
        content.append(text_item(codes.EXEMPLAR, plain(guide.exemplar, _LONG_TEXT)))
    return container_item(codes.MEASUREMENT_GROUP, "1501", content)


def _texts(result: Result) -> Iterable[sr.TextContentItem]:
    provenance, head = result.provenance, result.anchor
    yield _text(codes.CALIBRATED, result.label)
    yield _text(codes.QUANTITY, result.synthetic.meaning.quantity)
    for finding in result.findings:
        yield _text(codes.FINDING, _sentence(finding))
    if not result.findings:
        yield _text(codes.FINDING, NO_FINDING)
    yield _text(codes.JOB, provenance.digest)
    yield _text(codes.REVISION, str(provenance.revision))
    if provenance.predecessor is not None:
        yield _text(codes.PREDECESSOR, provenance.predecessor.mr_series_uid)
    yield _text(codes.INPUT_DIGEST, provenance.input_digest)
    yield _text(codes.BUNDLE_DIGEST, provenance.bundle_digest)
    yield _text(codes.CONFIGURATION_DIGEST, provenance.configuration_digest)
    yield _text(codes.ENGINE, provenance.engine_identity)
    if head is not None:
        yield _text(codes.AUDIT_HEAD, f"{head.sequence} {head.sha256}")
    if head is not None and head.signature is not None:
        yield _text(codes.AUDIT_SIGNATURE, head.signature)


def _sentence(finding: Finding) -> str:
    seen = "" if finding.value is None else f"seen {finding.value}"
    limit = "" if finding.limit is None else f"limit {finding.limit}"
    numbers = ", ".join(part for part in (seen, limit) if part)
    return f"{finding.code}: {finding.sentence}{f' ({numbers})' if numbers else ''}"


def _tracking(result: Result, identifier: str) -> sr.TrackingIdentifier:
    return sr.TrackingIdentifier(uid=_tracking_uid(result, identifier), identifier=identifier)


def _tracking_uid(result: Result, identifier: str) -> str:
    return result.uids.other("SR", f"tracking {identifier}")


def _numbers(*measurements: tuple[Triple, float | None, Triple]) -> Iterable[sr.Measurement]:
    """Make items of (name, value, unit); what has no value is left out."""
    for name, value, unit in measurements:
        if value is not None:
            measurement = sr.Measurement(name=concept(name), value=value, unit=concept(unit))
            # highdicom keeps the full value in FloatingPointValue (0040,A161)
            measurement[0].MeasuredValueSequence[0].NumericValue = f"{value:.3g}"
            yield measurement


def _count(kind: Triple, count: int) -> sr.NumContentItem:
    item = sr.NumContentItem(concept(codes.COUNT), count, concept(NO_UNITS), None, _CONTAINS)
    item.MeasuredValueSequence[0].NumericValue = str(count)  # without a decimal point
    modifier = RelationshipTypeValues.HAS_CONCEPT_MOD
    item.ContentSequence = sr.ContentSequence(
        [sr.CodeContentItem(concept(codes.POSITION_KIND), concept(kind), modifier)]
    )
    return item


def _text(name: Triple, value: str) -> sr.TextContentItem:
    return sr.TextContentItem(concept(name), plain(value, _LONG_TEXT), _CONTAINS)


def _image(name: Triple, class_uid: str, uid: str) -> sr.ImageContentItem:
    return sr.ImageContentItem(concept(name), class_uid, uid, relationship_type=_CONTAINS)


def _container(name: sr.CodedConcept, items: Sequence[sr.ContentItem]) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(name, relationship_type=_CONTAINS)
    container.ContentSequence = sr.ContentSequence(items)
    return container
