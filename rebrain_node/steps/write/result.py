"""What all objects of one result have in common, worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import ObjectKind, Provenance
from rebrain_node.domain.marks import SERIES_NUMBER_OFFSET, SERIES_ORDER
from rebrain_node.domain.volume import Guide, MillimetreArray, SyntheticVolume
from rebrain_node.errors import EngineError
from rebrain_node.steps.write.elements import common_elements
from rebrain_node.steps.write.identity import DerivedUids
from rebrain_node.steps.write.options import AuditAnchor, ObjectOptions
from rebrain_node.steps.write.source import Source, read_source


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

    @property
    def label(self) -> str:
        """How far the uncertainty can be trusted."""
        return self.synthetic.meaning.label

    @property
    def is_enhanced(self) -> bool:
        """Whether all slices are frames of one Enhanced MR."""
        return self.options.mr == "enhanced"

    def slice_name(self, index: int) -> tuple[str, str, int | None]:
        """SOP class, instance and frame number (None of a classic image) of a synthetic slice."""
        if self.is_enhanced:
            return str(EnhancedMRImageStorage), self.uids.instance("MR"), index + 1
        return str(MRImageStorage), self.uids.instance("MR", index), None

    def series_number(self, kind: ObjectKind) -> int:
        """Series number: far above those of scanners, apart by kind."""
        place = SERIES_ORDER.index(kind)
        return SERIES_NUMBER_OFFSET + self.source.series_number + 100 * place


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
    for name, values in (
        ("intensity", synthetic.intensity),
        ("uncertainty", synthetic.uncertainty),
    ):
        wrong = int(np.count_nonzero(~np.isfinite(values)))
        if wrong:
            raise EngineError(
                f"{wrong} of {values.size} voxels of the {name} are not finite, none may be; "
                "nothing is written, run `rebrain-node doctor` to test the engine"
            )
    source = read_source(instances, synthetic.prepared)
    return Result(
        synthetic=synthetic,
        source=source,
        provenance=provenance,
        findings=findings,
        options=options,
        anchor=anchor,
        uids=DerivedUids.of(provenance, findings, options, anchor),
        common=common_elements(source, provenance, findings, options, synthetic.meaning),
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
