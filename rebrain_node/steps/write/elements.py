"""What every object of a result contains: identity, marks, dates, equipment, private block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from highdicom.base_content import ContributingEquipment
from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import UNVERIFIED, Provenance
from rebrain_node.domain.marks import PrivateElement
from rebrain_node.domain.uncertainty import UncertaintyInterpretation
from rebrain_node.steps.write.codes import coding_scheme, concept
from rebrain_node.steps.write.encoding import encoded_once
from rebrain_node.steps.write.identity import derived_uid
from rebrain_node.steps.write.options import ObjectOptions
from rebrain_node.steps.write.source import Source
from rebrain_node.steps.write.text import LONG_STRING, plain


def common_elements(
    source: Source,
    provenance: Provenance,
    findings: Sequence[Finding],
    options: ObjectOptions,
    meaning: UncertaintyInterpretation,
) -> Dataset:
    """Gather what all objects share, encoded once for all of them."""
    dataset = Dataset()
    dataset.update(source.identity)
    dataset.ContentDate = dataset.SeriesDate = source.content_date
    dataset.ContentTime = dataset.SeriesTime = source.content_time
    dataset.SyntheticData = marks.SYNTHETIC_DATA
    dataset.Manufacturer = marks.MANUFACTURER
    dataset.ManufacturerModelName = marks.MODEL_NAME
    dataset.SoftwareVersions = plain(provenance.software_version, LONG_STRING)
    dataset.DeviceSerialNumber = provenance.bundle_digest
    dataset.CodingSchemeIdentificationSequence = [coding_scheme()]
    dataset.ContributingEquipmentSequence = [source.equipment, *_own_equipment(provenance)]
    add_private(dataset, _values(provenance, findings))
    add_private(dataset, _reading(options, meaning))
    return encoded_once(dataset)


def add_private(dataset: Dataset, values: Iterable[tuple[PrivateElement, object]]) -> None:
    """Add elements to our private block (PS3.5 7.8); those without a value are left out."""
    block = dataset.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR, create=True)
    for element, value in values:
        if value is not None:
            block.add_new(element.offset, element.vr, value)


def _own_equipment(provenance: Provenance) -> list[Dataset]:
    """Describe the model and the node (PS3.3 C.12.1.1.5, PS3.16 CID 7005)."""
    model = ContributingEquipment(
        manufacturer=marks.MANUFACTURER,
        purpose_of_reference=concept(marks.SYNTHESIZING_EQUIPMENT),
        manufacturer_model_name=plain(provenance.bundle_name, LONG_STRING),
        software_versions=plain(provenance.bundle_version, LONG_STRING),
        device_serial_number=provenance.bundle_digest,
        contribution_description="Synthesised the images; no scanner measured them",
    )
    model.DeviceUID = derived_uid("bundle", provenance.bundle_digest)
    node = ContributingEquipment(
        manufacturer=marks.MANUFACTURER,
        purpose_of_reference=concept(marks.PROCESSING_EQUIPMENT),
        manufacturer_model_name=marks.MODEL_NAME,
        software_versions=(
            plain(provenance.software_version, LONG_STRING),
            plain(provenance.engine_identity, LONG_STRING),
        ),
        contribution_description="Prepared the CT and wrote the objects",
    )
    return [model, node]


def _reading(
    options: ObjectOptions, meaning: UncertaintyInterpretation
) -> Iterable[tuple[PrivateElement, object]]:
    """How the uncertainty is to be read, and from where on nothing is to be trusted."""
    return (
        (marks.UNCERTAIN_ABOVE, options.uncertain_above),
        (marks.CALIBRATION, meaning.label),
        (marks.UNTRUSTED_ABOVE, meaning.untrusted_above),
    )


def _values(
    provenance: Provenance, findings: Sequence[Finding]
) -> Iterable[tuple[PrivateElement, object]]:
    before = provenance.predecessor
    return (
        (marks.JOB, provenance.digest),
        (marks.REVISION, provenance.revision),
        (marks.INPUT_DIGEST, provenance.input_digest),
        (
            marks.BUNDLE,
            [plain(t, LONG_STRING) for t in (provenance.bundle_name, provenance.bundle_version)],
        ),
        (marks.BUNDLE_DIGEST, provenance.bundle_digest),
        (marks.ENGINE, plain(provenance.engine_identity, LONG_STRING)),
        (marks.CONFIGURATION_DIGEST, provenance.configuration_digest),
        (marks.SOFTWARE, plain(provenance.software_version, LONG_STRING)),
        (marks.COMPLETENESS, UNVERIFIED),
        (marks.FINDINGS, list(dict.fromkeys(f.code for f in findings)) or None),
        (marks.PREDECESSOR, before.mr_series_uid if before is not None else None),
    )
