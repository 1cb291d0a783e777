"""The provenance report: Comprehensive 3D SR in the pattern of TID 1500 (PS3.16)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from highdicom import sr
from highdicom.sr import RelationshipTypeValues
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage

from rebrain_node.domain import marks
from rebrain_node.domain.job import Predecessor
from rebrain_node.steps.write.codes import Triple, concept, private
from rebrain_node.steps.write.identity import derived_uid
from rebrain_node.steps.write.references import listed
from rebrain_node.steps.write.report_table import slice_group, volume_group
from rebrain_node.steps.write.result import Result
from rebrain_node.steps.write.stamp import stamp

IMAGE: Final = private("LISTED-IMAGE", "Image of the library")


def write_report(
    result: Result, images: Sequence[Dataset], companions: Sequence[Dataset]
) -> Dataset:
    """Build the report over the MR series and the companions written so far; unverified."""
    content = sr.MeasurementReport(
        observation_context=_observer(result),
        procedure_reported=concept(marks.DERIVATION_CODE),
        imaging_measurements=[volume_group(result)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    dataset = sr.Comprehensive3DSR(
        evidence=[*map(listed, [*images, *companions]), *_source_evidence(result)],
        content=content,
        series_instance_uid=result.uids.series("SR"),
        series_number=result.series_number("SR"),
        sop_instance_uid=result.uids.instance("SR"),
        instance_number=1,
        manufacturer=marks.MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=f"{marks.SERIES_DESCRIPTION_WORD} provenance of MR T1",
    )
    # Once built, highdicom copies the whole tree; so the long parts are put in afterwards.
    dataset.ContentSequence.insert(-1, _library(result, images))
    for record in result.slices:
        dataset.ContentSequence[-1].ContentSequence.extend(slice_group(result, record))
    before = result.provenance.predecessor
    if before is not None and before.report_uid is not None:
        dataset.PredecessorDocumentsSequence = [_predecessor(result, before)]
    stamp(dataset, result)
    return dataset


def _predecessor(result: Result, before: Predecessor) -> Dataset:
    """Refer to the report of the revision before (PS3.3 C.17.2, C.17.2.3)."""
    report, series, study = Dataset(), Dataset(), Dataset()
    report.ReferencedSOPClassUID = Comprehensive3DSRStorage
    report.ReferencedSOPInstanceUID = before.report_uid
    series.SeriesInstanceUID = before.report_series_uid
    series.ReferencedSOPSequence = [report]
    study.StudyInstanceUID = result.source.study_instance_uid
    study.ReferencedSeriesSequence = [series]
    return study


def _source_evidence(result: Result) -> Iterable[Dataset]:
    for instance_uid, class_uid in result.source.class_uids.items():
        item = Dataset()
        item.SOPClassUID, item.SOPInstanceUID = class_uid, instance_uid
        item.StudyInstanceUID = result.source.study_instance_uid
        item.SeriesInstanceUID = result.source.series_instance_uid
        yield item


def _observer(result: Result) -> sr.ObservationContext:
    """Observer is a device: nobody has looked at this report (TID 1004)."""
    digest = result.provenance.bundle_digest
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=derived_uid("bundle", digest),
                manufacturer_name=marks.MANUFACTURER,
                model_name=marks.MODEL_NAME,
                serial_number=digest,
            ),
        )
    )


def _library(result: Result, images: Sequence[Dataset]) -> sr.ContainerContentItem:
    """Image library (TID 1600): source and MR series, one group each, described once a group."""
    library = sr.ContainerContentItem(
        name=codes.DCM.ImageLibrary, relationship_type=RelationshipTypeValues.CONTAINS
    )
    source = [(class_uid, uid) for uid, class_uid in result.source.class_uids.items()]
    mr = [(str(image.SOPClassUID), str(image.SOPInstanceUID)) for image in images]
    library.ContentSequence = sr.ContentSequence(
        [
            _library_group(result, ("CT", "DCM", "Computed Tomography"), source),
            _library_group(result, ("MR", "DCM", "Magnetic Resonance"), mr),
        ]
    )
    return library


def _library_group(
    result: Result, modality: Triple, references: Iterable[tuple[str, str]]
) -> sr.ContainerContentItem:
    context = RelationshipTypeValues.HAS_ACQ_CONTEXT
    group = sr.ContainerContentItem(
        name=codes.DCM.ImageLibraryGroup, relationship_type=RelationshipTypeValues.CONTAINS
    )
    group.ContentSequence = sr.ContentSequence(
        [
            sr.CodeContentItem(codes.DCM.Modality, concept(modality), context),
            sr.UIDRefContentItem(
                codes.DCM.FrameOfReferenceUID,
                result.synthetic.prepared.frame_of_reference_uid,
                context,
            ),
            *(
                sr.ImageContentItem(
                    concept(IMAGE),
                    class_uid,
                    uid,
                    relationship_type=RelationshipTypeValues.CONTAINS,
                )
                for class_uid, uid in references
            ),
        ]
    )
    return group
