"""What all objects of a result have in common: identity, marks, names, private block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from highdicom.base_content import ContributingEquipment
from pydicom.dataset import Dataset
from pydicom.uid import UID, EnhancedMRImageStorage, MRImageStorage

from rebrain_node.domain import marks
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import ObjectKind, Provenance
from rebrain_node.domain.marks import SERIES_NUMBER_OFFSET, SERIES_ORDER, PrivateElement
from rebrain_node.domain.volume import Guide, MaskArray, MillimetreArray, SyntheticVolume
from rebrain_node.errors import EngineError
from rebrain_node.steps.write.codes import coding_scheme, concept
from rebrain_node.steps.write.encoding import encoded_once, plain
from rebrain_node.steps.write.identity import (
    AuditAnchor,
    DerivedUids,
    ObjectOptions,
    derived_uid,
)
from rebrain_node.steps.write.source import Source, read_source

#: set by highdicom from the wall clock; an object must not depend on it
_CLOCKED: Final = ("InstanceCreationDate", "InstanceCreationTime")
_YES_NO: Final = {True: "YES", False: "NO"}
_PrivateValues = Iterable[tuple[PrivateElement, object]]


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A measured slice that brackets a synthetic one."""

    sop_instance_uid: str
    frame_number: int | None  #: None for a classic CT instance


@dataclass(frozen=True, kw_only=True)
class SliceRecord:
    """One synthetic slice: where it lies and how it came about."""

    index: int  #: from 0, along the normal
    guide: Guide
    position_mm: MillimetreArray  #: (3,) LPS of the centre of voxel (0, 0)
    neighbours: tuple[Neighbour, ...]  #: below and above; one where measured
    uncertainty: float  #: mean inside the head, ratio of the display range
    trusted: bool | None  #: whether that is within the recipe's limit; None without a limit


@dataclass(frozen=True, kw_only=True)
class Result:
    """One result on its way to becoming objects."""

    synthetic: SyntheticVolume
    source: Source
    provenance: Provenance
    findings: tuple[Finding, ...]
    options: ObjectOptions
    anchor: AuditAnchor | None
    uids: DerivedUids
    common: Dataset  #: elements of every object, encoded once
    slices: tuple[SliceRecord, ...]
    #: (rows, columns), pixels of the MR that are drawn white; None: no ink, or no room for it
    ink: MaskArray | None = None

    @property
    def label(self) -> str:
        """How far the uncertainty can be trusted."""
        return self.synthetic.meaning.label

    @property
    def is_enhanced(self) -> bool:
        """Whether all slices are frames of one Enhanced MR."""
        return self.options.mr == "enhanced"

    @property
    def lacks_room(self) -> bool:
        """Whether the site asks for ink in the pixels and the head leaves no room for it."""
        return self.options.ink != "none" and self.ink is None

    def slice_name(self, index: int) -> tuple[str, str, int | None]:
        """SOP class, instance and frame number (None of a classic image) of a synthetic slice."""
        if self.is_enhanced:
            return str(EnhancedMRImageStorage), self.uids.instance("MR"), index + 1
        return str(MRImageStorage), self.uids.instance("MR", index), None

    def names(self, kind: ObjectKind, index: int = 0) -> dict[str, Any]:
        """Arguments of highdicom that name an object; ``index`` from 0 among its kind.

        The series number lies far above those of scanners, apart by kind.
        """
        place = SERIES_ORDER.index(kind)
        return {
            "series_instance_uid": self.uids.series(kind),
            "series_number": SERIES_NUMBER_OFFSET + self.source.series_number + 100 * place,
            "sop_instance_uid": self.uids.instance(kind, index),
            "instance_number": index + 1,
            "manufacturer": marks.MANUFACTURER,
        }


def gather(
    synthetic: SyntheticVolume,
    instances: Sequence[Dataset],
    provenance: Provenance,
    findings: tuple[Finding, ...],
    options: ObjectOptions,
    anchor: AuditAnchor | None,
) -> Result:
    """Work out what the objects share.

    Raises
    ------
    EngineError
        The volume holds values that are not finite.
    SeriesRejectedError
        Text of the source cannot be copied exactly.
    """
    for name in ("intensity", "uncertainty"):
        values = getattr(synthetic, name)
        wrong = int(np.count_nonzero(~np.isfinite(values)))
        if wrong:
            raise EngineError(
                f"{wrong} of {values.size} voxels of the {name} are not finite, none may be; "
                "nothing is written, run `rebrain-node doctor` to test the engine"
            )
    source = read_source(instances, synthetic.prepared)
    common = _common(source, provenance)
    add_private(common, _result_values(synthetic, provenance, findings, options))
    return Result(
        synthetic=synthetic,
        source=source,
        provenance=provenance,
        findings=findings,
        options=options,
        anchor=anchor,
        uids=DerivedUids.of(provenance, findings, options, anchor),
        common=encoded_once(common),
        slices=tuple(_record(synthetic, k) for k in range(len(synthetic.guides))),
    )


def _record(synthetic: SyntheticVolume, index: int) -> SliceRecord:
    guide, prepared = synthetic.guides[index], synthetic.prepared
    target = guide.target
    return SliceRecord(
        index=index,
        guide=guide,
        position_mm=synthetic.grid.plane_origin_mm(target.distance_mm),
        neighbours=tuple(
            Neighbour(
                sop_instance_uid=prepared.sop_instance_uids[n],
                frame_number=prepared.frame_numbers[n],
            )
            for n in dict.fromkeys((target.below, target.above))
        ),
        uncertainty=synthetic.slice_uncertainty[index],
        trusted=synthetic.trusted[index],
    )


def _common(source: Source, provenance: Provenance) -> Dataset:
    dataset = Dataset()
    dataset.update(source.identity)
    dataset.ContentDate = dataset.SeriesDate = source.content_date
    dataset.ContentTime = dataset.SeriesTime = source.content_time
    dataset.SyntheticData = marks.SYNTHETIC_DATA
    dataset.Manufacturer = marks.MANUFACTURER
    dataset.ManufacturerModelName = marks.MODEL_NAME
    dataset.SoftwareVersions = plain(provenance.software_version)
    dataset.DeviceSerialNumber = provenance.bundle_digest
    dataset.CodingSchemeIdentificationSequence = [coding_scheme()]
    dataset.ContributingEquipmentSequence = [source.equipment, *_own_equipment(provenance)]
    return dataset


def _own_equipment(provenance: Provenance) -> list[Dataset]:
    """Describe the model and the node (PS3.3 C.12.1.1.5, PS3.16 CID 7005)."""
    model = ContributingEquipment(
        manufacturer=marks.MANUFACTURER,
        purpose_of_reference=concept(marks.SYNTHESIZING_EQUIPMENT),
        manufacturer_model_name=plain(provenance.bundle_name),
        software_versions=plain(provenance.bundle_version),
        device_serial_number=provenance.bundle_digest,
        contribution_description="Synthesised the images; no scanner measured them",
    )
    model.DeviceUID = derived_uid("bundle", provenance.bundle_digest)
    node = ContributingEquipment(
        manufacturer=marks.MANUFACTURER,
        purpose_of_reference=concept(marks.PROCESSING_EQUIPMENT),
        manufacturer_model_name=marks.MODEL_NAME,
        software_versions=(plain(provenance.software_version), plain(provenance.engine_identity)),
        contribution_description="Prepared the CT and wrote the objects",
    )
    return [model, node]


def add_private(dataset: Dataset, values: _PrivateValues) -> None:
    """Add elements to our private block (PS3.5 7.8); those without a value are left out."""
    block = dataset.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR, create=True)
    for element, value in values:
        if value is not None:
            block.add_new(element.offset, element.vr, value)


def _result_values(
    synthetic: SyntheticVolume,
    provenance: Provenance,
    findings: Sequence[Finding],
    options: ObjectOptions,
) -> _PrivateValues:
    before, tissue = provenance.predecessor, synthetic.prepared.tissue
    return (
        (marks.JOB, provenance.digest),
        (marks.REVISION, provenance.revision),
        (marks.INPUT_DIGEST, provenance.input_digest),
        (marks.BUNDLE, [plain(provenance.bundle_name), plain(provenance.bundle_version)]),
        (marks.BUNDLE_DIGEST, provenance.bundle_digest),
        (marks.ENGINE, plain(provenance.engine_identity)),
        (marks.CONFIGURATION_DIGEST, provenance.configuration_digest),
        (marks.SOFTWARE, plain(provenance.software_version)),
        (marks.COMPLETENESS, provenance.completeness),
        (marks.FINDINGS, list(dict.fromkeys(f.code for f in findings)) or None),
        (marks.UNCERTAIN_ABOVE, options.uncertain_above),
        (marks.PREDECESSOR, before.mr_series_uid if before is not None else None),
        (marks.CALIBRATION, synthetic.meaning.label),
        (marks.UNTRUSTED_ABOVE, synthetic.meaning.untrusted_above),
        (marks.TISSUE_SHIFT, None if tissue is None else tissue.shift_hu),
    )


def add_slice_provenance(dataset: Dataset, result: Result, record: SliceRecord) -> None:
    """Add how one slice came about to the private block."""
    guide, trusted = record.guide, record.trusted
    frames = [n.frame_number for n in record.neighbours]
    values: _PrivateValues = (
        (marks.POSITION_KIND, marks.POSITION_KINDS[guide.kind]),
        (marks.ALPHA, guide.target.alpha),
        (marks.NEIGHBOURS, [n.sop_instance_uid for n in record.neighbours]),
        (marks.EXEMPLAR, None if guide.exemplar is None else plain(guide.exemplar)),
        (marks.SIMILARITY, guide.similarity),
        (marks.POSITION_DIFFERENCE, guide.position_difference_mm),
        (marks.TAU, guide.tau),
        (marks.UNCERTAINTY, record.uncertainty),
        (marks.CALIBRATED, _YES_NO[result.synthetic.meaning.calibrated]),
        (marks.TRUSTED, None if trusted is None else _YES_NO[trusted]),
        (marks.NEIGHBOUR_FRAMES, None if None in frames else frames),
        (marks.WATERMARK, marks.WATERMARK_SCHEME if result.options.watermark else None),
    )
    add_private(dataset, values)


def stamp(dataset: Dataset, result: Result) -> None:
    """Overwrite what all objects share, and the file meta, of a finished object in place."""
    for keyword in _CLOCKED:
        dataset.pop(keyword, None)
    dataset.update(result.common)
    dataset.file_meta.ImplementationClassUID = UID(marks.IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = marks.IMPLEMENTATION_VERSION_NAME


def stamp_image(dataset: Dataset, result: Result) -> None:
    """Add the marks of an image to those of every object."""
    dataset.ContentQualification = marks.CONTENT_QUALIFICATION
    dataset.BurnedInAnnotation = "NO"
    dataset.RecognizableVisualFeatures = "YES"
    dataset.BodyPartExamined = "HEAD"
    dataset.update(result.source.lossy)
