"""What the rules see: the written bytes parsed anew, beside the source instances.

A frame of an Enhanced MR is presented as a classic slice, so that the same rules hold for both
forms: attributes of its functional groups, its own before shared ones, stand beside those of the
instance (PS3.3 C.7.6.16).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from rebrain_node.domain import marks
from rebrain_node.domain.job import DerivedInstance, DerivedSet, ObjectKind, Provenance
from rebrain_node.domain.volume import FULL_STORED_RANGE, MillimetreArray, StoredRange
from rebrain_node.steps.gate.parse import ElementCache

PixelArray = npt.NDArray[np.uint16]
MRForm = Literal["classic", "enhanced"]
T = TypeVar("T")

_GROUPS: Final = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
#: groups without a counterpart in a classic MR: stored values are displayed unchanged
_SKIPPED_GROUPS: Final = ("PixelValueTransformationSequence",)
#: what pydicom raises on bytes that are not a data set
PARSE_ERRORS: Final = (
    InvalidDicomError, BytesLengthException, EOFError, OSError, ValueError, KeyError,
    NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True)
class Plane:
    """The plane of one frame in patient coordinates (LPS, mm; PS3.3 C.7.6.2)."""

    name: str  #: of the object it belongs to
    frame: int  #: 1-based; 1 for a single-frame instance
    position_mm: MillimetreArray  #: (3,) centre of voxel (0, 0)
    row: MillimetreArray  #: (3,) direction of increasing column index
    column: MillimetreArray  #: (3,) direction of increasing row index
    spacing_mm: tuple[float, float]  #: between rows, between columns
    shape: tuple[int, int]  #: rows, columns

    @property
    def normal(self) -> MillimetreArray:
        """Unit normal, (3,): right-handed with row and column."""
        across = np.cross(self.row, self.column)
        length = float(np.linalg.norm(across))
        return across / length if length > 0 else across

    @property
    def corners_mm(self) -> MillimetreArray:
        """Centres of the four corner voxels, (4, 3)."""
        down = self.column * self.spacing_mm[0] * (self.shape[0] - 1)
        across = self.row * self.spacing_mm[1] * (self.shape[1] - 1)
        start = self.position_mm
        return np.stack([start, start + down, start + across, start + down + across])


@dataclass(frozen=True, eq=False)
class SlicePixels:
    """Pixels of one MR slice."""

    name: str  #: of the slice
    stored: PixelArray  #: (rows, columns), stored values

    @cached_property
    def counts(self) -> npt.NDArray[np.intp]:
        """How many pixels have each stored value, up to the largest that occurs."""
        return np.bincount(self.stored.ravel())


@dataclass(frozen=True, eq=False)
class WrittenObject:
    """One written object; ``name`` is its kind and its number among its kind, e.g. ``MR 12``."""

    name: str
    record: DerivedInstance
    dataset: Dataset

    @property
    def kind(self) -> ObjectKind:
        """Which of the six objects the record says it is."""
        return self.record.kind

    @cached_property
    def planes(self) -> tuple[Plane, ...]:
        """Planes of its frames; frames without a complete plane are left out."""
        return tuple(_planes(self.name, self.dataset))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, 0 where absent."""
        return int(self.get("Rows") or 0), int(self.get("Columns") or 0)

    def get(self, keyword: str) -> Any:
        """Value of a top-level element, None where it is absent or empty."""
        value = self.dataset.get(keyword)
        return None if value is None or value == "" else value

    def items(self, keyword: str) -> tuple[Dataset, ...]:
        """Items of a top-level sequence, none where it is absent."""
        return tuple(self.dataset.get(keyword) or ())

    def private(self, element: marks.PrivateElement) -> Any:
        """Value of an element of our private block, None where block or element is absent."""
        try:
            block = self.dataset.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
            value = block[element.offset].value
        except KeyError:
            return None
        return None if value == "" else value


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """One written set, the instances it was made from, and what was to be written."""

    records: tuple[DerivedInstance, ...]  #: all objects, in the order in which they would be sent
    objects: tuple[WrittenObject, ...]  #: those of them that parse, in the same order
    unreadable: tuple[tuple[str, str], ...]  #: (name, reason) of objects that do not parse
    source: tuple[Dataset, ...]
    provenance: Provenance
    companions: tuple[ObjectKind, ...]  #: kinds that must accompany the MR series
    mr_form: MRForm  #: whether the MR is a series of images or one multi-frame object
    stored_range: StoredRange  #: stored values of black and white, as the recipe says
    watermark: bool = False  #: whether the pixels of the MR are to carry the mark
    _computed: dict[object, Any] = field(default_factory=dict, init=False, repr=False)

    def of(self, *kinds: ObjectKind) -> tuple[WrittenObject, ...]:
        """Objects of the kinds given, in order."""
        return tuple(each for each in self.objects if each.kind in kinds)

    def with_frames(self, objects: Iterable[WrittenObject]) -> tuple[WrittenObject, ...]:
        """Add the frames of an Enhanced MR to objects."""
        return tuple(dict.fromkeys((*objects, *self.mr_slices)))

    def once(self, compute: Callable[[Context], T]) -> T:
        """Result of a function of this context, computed at the first call only."""
        if compute not in self._computed:
            self._computed[compute] = compute(self)
        result: T = self._computed[compute]
        return result

    @cached_property
    def mr_slices(self) -> tuple[WrittenObject, ...]:
        """The slices of the synthetic series; frames of an Enhanced MR, one by one."""
        return tuple(each for mr in self.of("MR") for each in _slices(mr))

    @cached_property
    def mr_planes(self) -> tuple[Plane, ...]:
        """Planes of the MR slices; slices without a complete plane are left to GATE-PLANE."""
        return tuple(plane for each in self.mr_slices for plane in each.planes)

    @cached_property
    def mr_pixels(self) -> tuple[SlicePixels, ...]:
        """Pixels of the MR slices whose pixel data have the right length."""
        found = []
        for each in self.mr_slices:
            rows, columns = each.shape
            content = each.dataset.get("PixelData") or b""
            if len(content) == 2 * rows * columns:
                stored = np.frombuffer(content, dtype="<u2").reshape(rows, columns)
                found.append(SlicePixels(each.name, stored))
        return tuple(found)

    @cached_property
    def source_planes(self) -> tuple[Plane, ...]:
        """Planes of the source slices, one for each frame; named by SOP Instance UID."""
        return tuple(
            plane
            for dataset in self.source
            for plane in _planes(str(dataset.get("SOPInstanceUID")), dataset)
        )

    @cached_property
    def source_classes(self) -> dict[str, str]:
        """SOP Class UID of each source instance by its SOP Instance UID."""
        return {str(d.get("SOPInstanceUID")): str(d.get("SOPClassUID")) for d in self.source}


def read(
    derived: DerivedSet,
    source: Sequence[Dataset],
    companions: Sequence[ObjectKind],
    mr_form: MRForm = "classic",
    stored_range: StoredRange = FULL_STORED_RANGE,
) -> Context:
    """Parse every object of the set from its bytes."""
    objects, unreadable, cache = [], [], ElementCache()
    counts: dict[str, int] = {}
    for record in derived.instances:
        counts[record.kind] = counts.get(record.kind, 0) + 1
        name = f"{record.kind} {counts[record.kind]}"
        try:
            objects.append(WrittenObject(name, record, cache.parse(record.content)))
        except PARSE_ERRORS as error:
            unreadable.append((name, f"{type(error).__name__}: {error}"))
    return Context(
        records=derived.instances,
        objects=tuple(objects),
        unreadable=tuple(unreadable),
        source=tuple(source),
        provenance=derived.provenance,
        companions=tuple(companions),
        mr_form=mr_form,
        stored_range=stored_range,
    )


def _slices(mr: WrittenObject) -> Iterator[WrittenObject]:
    if "PerFrameFunctionalGroupsSequence" not in mr.dataset:
        yield mr
        return
    for number, frame in enumerate(frames_as_slices(mr.dataset), start=1):
        yield WrittenObject(f"{mr.name} frame {number}", mr.record, frame)


def frames_as_slices(dataset: Dataset) -> Iterator[Dataset]:
    """Yield each frame of an Enhanced MR as the data set of a classic slice.

    Parameters
    ----------
    dataset : Dataset
        An Enhanced MR with Per-frame Functional Groups Sequence.

    Yields
    ------
    Dataset
        Functional groups beside the attributes of the instance; Pixel Data of the frame alone,
        shorter than a frame where the instance's are.
    """
    common = Dataset()
    common.update({e.tag: e for e in dataset if e.keyword not in (*_GROUPS, "PixelData")})
    for group in dataset.get("SharedFunctionalGroupsSequence") or ():
        _add_groups(common, group)
    size = 2 * int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0)
    content = dataset.get("PixelData") or b""
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame = Dataset()
        frame.update(common)
        frame.file_meta = dataset.file_meta
        _add_groups(frame, group)
        # new elements: those of the instance are shared by all frames
        frame.add_new("InstanceNumber", "IS", frame.get("InStackPositionNumber"))
        frame.add_new("ImageComments", "LT", frame.get("FrameComments"))
        frame.add_new("ImageType", "CS", frame.get("FrameType"))
        frame.add_new("PixelData", "OW", content[number * size : (number + 1) * size])
        yield frame


def _add_groups(frame: Dataset, groups: Dataset) -> None:
    """Add the attributes of the first item of each functional group."""
    for element in groups:
        if element.VR == "SQ" and element.value and element.keyword not in _SKIPPED_GROUPS:
            if element.tag.is_private:
                _add_private_block(frame, element.value[0])
            else:
                frame.update({inner.tag: inner for inner in element.value[0]})


def _add_private_block(frame: Dataset, item: Dataset) -> None:
    own, added = (
        holder.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR) for holder in (frame, item)
    )
    for element in marks.SLICE_ELEMENTS:
        if element.offset in added:
            own.add_new(element.offset, element.vr, added[element.offset].value)


def _planes(name: str, dataset: Dataset) -> Iterator[Plane]:
    """Yield the plane of each frame that states one completely."""
    shared = _first_item(dataset, "SharedFunctionalGroupsSequence")
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    for number, frame in enumerate(frames, start=1):
        groups = (frame, shared, dataset)
        position = _floats(groups, "PlanePositionSequence", "ImagePositionPatient", 3)
        directions = _floats(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        spacing = _floats(groups, "PixelMeasuresSequence", "PixelSpacing", 2)
        shape = dataset.get("Rows"), dataset.get("Columns")
        if position is None or directions is None or spacing is None or None in shape:
            continue
        yield Plane(
            name,
            number,
            position,
            directions[:3],
            directions[3:],
            (float(spacing[0]), float(spacing[1])),
            (int(shape[0]), int(shape[1])),
        )


def _first_item(dataset: Dataset, keyword: str) -> Dataset:
    items = dataset.get(keyword)
    return items[0] if items else Dataset()


def _floats(
    groups: Sequence[Dataset], group: str, keyword: str, count: int
) -> MillimetreArray | None:
    """Find an attribute in the frame's groups, the shared ones, or the instance itself."""
    for holder in (*(_first_item(each, group) for each in groups[:2]), groups[2]):
        value: Any = holder.get(keyword)
        if value is not None:
            numbers = np.asarray([float(part) for part in np.atleast_1d(value)], dtype=np.float64)
            usable = numbers.size == count and bool(np.isfinite(numbers).all())
            return numbers if usable else None
    return None
