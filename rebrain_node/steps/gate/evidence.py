"""What the gate looks at: the written bytes parsed anew, beside the source instances."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from rebrain_node.domain.job import DerivedInstance, DerivedSet, ObjectKind, Provenance
from rebrain_node.steps.gate.frames import flattened
from rebrain_node.steps.gate.plane import Plane, planes

PixelArray = npt.NDArray[np.uint16]
MRForm = Literal["classic", "enhanced"]


@dataclass(frozen=True)
class Written:
    """One written object; ``name`` is its kind and its place among its kind, e.g. ``MR 12``."""

    name: str
    record: DerivedInstance
    dataset: Dataset

    @property
    def kind(self) -> ObjectKind:
        """Which of the six objects the record says it is."""
        return self.record.kind

    def get(self, keyword: str) -> Any:
        """Value of a top-level element, None where it is absent or empty."""
        value = self.dataset.get(keyword)
        return None if value is None or value == "" else value

    def items(self, keyword: str) -> tuple[Dataset, ...]:
        """Items of a top-level sequence, none where it is absent."""
        return tuple(self.dataset.get(keyword) or ())


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """One written set, the instances it was made from, and what was to be written."""

    records: tuple[DerivedInstance, ...]  #: all objects, in the order in which they would be sent
    written: tuple[Written, ...]  #: those of them that parse, in the same order
    unreadable: tuple[tuple[str, str], ...]  #: (name, why) of objects that do not parse
    source: tuple[Dataset, ...]
    provenance: Provenance
    companions: tuple[ObjectKind, ...]  #: kinds that must stand beside the MR series
    mr_form: MRForm  #: whether the MR is a series of images or one of many frames

    def of(self, *kinds: ObjectKind) -> Iterator[Written]:
        """Objects of the kinds given, in order."""
        return (each for each in self.written if each.kind in kinds)

    @cached_property
    def mr(self) -> tuple[Written, ...]:
        """The slices of the synthetic series; frames of an Enhanced MR, one by one."""
        return tuple(slice_ for written in self.of("MR") for slice_ in _slices(written))

    @cached_property
    def mr_planes(self) -> tuple[Plane, ...]:
        """Where the MR slices lie; slices without a whole plane are left to GATE-PLANE."""
        return tuple(plane for each in self.mr for plane in planes(each.name, each.dataset))

    @cached_property
    def mr_pixels(self) -> tuple[tuple[Written, PixelArray], ...]:
        """Stored values (rows, columns) of the MR slices whose pixels have the right length."""
        found = []
        for each in self.mr:
            shape = int(each.get("Rows") or 0), int(each.get("Columns") or 0)
            content = each.dataset.get("PixelData") or b""
            if len(content) == 2 * shape[0] * shape[1]:
                found.append((each, np.frombuffer(content, dtype="<u2").reshape(shape)))
        return tuple(found)

    @cached_property
    def source_planes(self) -> tuple[Plane, ...]:
        """Where the source slices lie, one for each frame."""
        return tuple(
            plane
            for dataset in self.source
            for plane in planes(str(dataset.get("SOPInstanceUID")), dataset)
        )


def read(
    derived: DerivedSet,
    source: Sequence[Dataset],
    companions: Sequence[ObjectKind],
    mr_form: MRForm = "classic",
) -> Evidence:
    """Parse every object of the set from its bytes."""
    written, unreadable = [], []
    counts: dict[str, int] = {}
    for record in derived.instances:
        counts[record.kind] = counts.get(record.kind, 0) + 1
        name = f"{record.kind} {counts[record.kind]}"
        try:
            written.append(Written(name, record, _parse(record.content)))
        except _NOT_DICOM as error:
            unreadable.append((name, f"{type(error).__name__}: {error}"))
    return Evidence(
        records=derived.instances,
        written=tuple(written),
        unreadable=tuple(unreadable),
        source=tuple(source),
        provenance=derived.provenance,
        companions=tuple(companions),
        mr_form=mr_form,
    )


def _slices(written: Written) -> Iterator[Written]:
    if "PerFrameFunctionalGroupsSequence" not in written.dataset:
        yield written
        return
    for number, flat in enumerate(flattened(written.dataset), start=1):
        yield Written(f"{written.name} frame {number}", written.record, flat)


#: what pydicom raises on bytes that are no data set
_NOT_DICOM = (
    InvalidDicomError, BytesLengthException, EOFError, OSError, ValueError, KeyError,
    NotImplementedError,
)  # fmt: skip


def _parse(content: bytes) -> Dataset:
    dataset: Dataset = dcmread(io.BytesIO(content), force=False)
    # Values are decoded when first read; decode all now, so that no rule stumbles later.
    for element in dataset.iterall():
        _ = element.value
    return dataset
