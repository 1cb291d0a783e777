"""What every object bears: identity, marks of syntheticness, equipment, private block."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Final

from highdicom.base_content import ContributingEquipment
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import UID

from rebrain_node.domain import marks
from rebrain_node.domain.job import DerivedInstance, ObjectKind
from rebrain_node.domain.marks import PrivateElement
from rebrain_node.steps.write.codes import coding_scheme, concept
from rebrain_node.steps.write.identity import derived_uid
from rebrain_node.steps.write.result import Result, SliceRecord
from rebrain_node.steps.write.text import plain

#: LO, the longest text of an identity in the private block (PS3.5 6.2)
_LONG_STRING: Final = 64
#: set by highdicom from the wall clock; an object must not depend on it
_CLOCKED: Final = ("InstanceCreationDate", "InstanceCreationTime")


def stamp(dataset: Dataset, result: Result) -> None:
    """Overwrite identity, marks, dates and equipment of a finished object in place."""
    for keyword in _CLOCKED:
        dataset.pop(keyword, None)
    dataset.update(result.source.identity)
    dataset.ContentDate = result.source.content_date
    dataset.ContentTime = result.source.content_time
    dataset.SeriesDate = result.source.content_date
    dataset.SeriesTime = result.source.content_time
    dataset.SyntheticData = marks.SYNTHETIC_DATA
    dataset.Manufacturer = marks.MANUFACTURER
    dataset.ManufacturerModelName = marks.MODEL_NAME
    dataset.SoftwareVersions = plain(result.provenance.software_version, _LONG_STRING)
    dataset.DeviceSerialNumber = result.provenance.bundle_digest[:_LONG_STRING]
    dataset.CodingSchemeIdentificationSequence = [coding_scheme()]
    dataset.ContributingEquipmentSequence = _equipment(result)
    _add_private(dataset, _object_values(result))
    dataset.file_meta.ImplementationClassUID = UID(marks.IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = marks.IMPLEMENTATION_VERSION_NAME


def stamp_image(dataset: Dataset, result: Result) -> None:
    """Add the marks of an image to those of every object."""
    dataset.ContentQualification = marks.CONTENT_QUALIFICATION
    dataset.BurnedInAnnotation = "NO"
    dataset.RecognizableVisualFeatures = "YES"
    dataset.update(result.source.lossy)


def stamp_slice(dataset: Dataset, result: Result, record: SliceRecord) -> None:
    """Add the provenance of one slice to the private block."""
    _add_private(dataset, _slice_values(result, record))


def encode(dataset: Dataset, kind: ObjectKind) -> DerivedInstance:
    """Write a data set as the bytes of a DICOM file (PS3.10)."""
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return DerivedInstance(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        content=buffer.getvalue(),
    )


def _equipment(result: Result) -> list[Dataset]:
    """List the scanner, the model and the node (PS3.3 C.12.1.1.5, PS3.16 CID 7005)."""
    provenance = result.provenance
    software = plain(provenance.software_version, _LONG_STRING)
    model = ContributingEquipment(
        manufacturer=marks.MANUFACTURER,
        purpose_of_reference=concept(marks.SYNTHESIZING_EQUIPMENT),
        manufacturer_model_name=plain(provenance.bundle_name, _LONG_STRING),
        software_versions=plain(provenance.bundle_version, _LONG_STRING),
        device_serial_number=provenance.bundle_digest,
        contribution_description="Synthesised the images; no scanner measured them",
    )
    model.DeviceUID = derived_uid("bundle", provenance.bundle_digest)
    node = ContributingEquipment(
        manufacturer=marks.MANUFACTURER,
        purpose_of_reference=concept(marks.PROCESSING_EQUIPMENT),
        manufacturer_model_name=marks.MODEL_NAME,
        software_versions=(software, plain(provenance.engine_identity, _LONG_STRING)),
        contribution_description="Prepared the CT and wrote the objects",
    )
    return [result.source.equipment, model, node]


def _add_private(dataset: Dataset, values: Iterable[tuple[PrivateElement, object]]) -> None:
    block = dataset.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR, create=True)
    for element, value in values:
        if value is not None:
            block.add_new(element.offset, element.vr, value)


def _object_values(result: Result) -> Iterable[tuple[PrivateElement, object]]:
    provenance = result.provenance
    return (
        (marks.JOB, provenance.digest),
        (marks.REVISION, provenance.revision),
        (marks.INPUT_DIGEST, provenance.input_digest),
        (
            marks.BUNDLE,
            [plain(t, _LONG_STRING) for t in (provenance.bundle_name, provenance.bundle_version)],
        ),
        (marks.BUNDLE_DIGEST, provenance.bundle_digest),
        (marks.ENGINE, plain(provenance.engine_identity, _LONG_STRING)),
        (marks.CONFIGURATION_DIGEST, provenance.configuration_digest),
        (marks.SOFTWARE, plain(provenance.software_version, _LONG_STRING)),
        (marks.COMPLETENESS, plain(result.options.completeness, _LONG_STRING)),
        (marks.FINDINGS, list(dict.fromkeys(f.code for f in result.findings)) or None),
    )


def _slice_values(result: Result, record: SliceRecord) -> Iterable[tuple[PrivateElement, object]]:
    guide = record.guide
    frames = [n.frame_number for n in record.neighbours]
    return (
        (marks.POSITION_KIND, marks.POSITION_KINDS[guide.kind]),
        (marks.ALPHA, guide.target.alpha),
        (marks.NEIGHBOURS, [n.sop_instance_uid for n in record.neighbours]),
        (marks.EXEMPLAR, None if guide.exemplar is None else plain(guide.exemplar, _LONG_STRING)),
        (marks.SIMILARITY, guide.similarity),
        (marks.POSITION_DIFFERENCE, guide.position_difference_mm),
        (marks.TAU, guide.tau),
        (marks.UNCERTAINTY, record.uncertainty),
        (marks.CALIBRATED, "YES" if result.synthetic.calibrated else "NO"),
        (marks.NEIGHBOUR_FRAMES, None if None in frames else frames),
    )
