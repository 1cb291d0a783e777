"""A written set whose objects a test can edit and encode again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from rebrain_node.domain.job import DerivedInstance, DerivedSet, Provenance
from rebrain_node.domain.uncertainty import UncertaintyInterpretation
from rebrain_node.domain.volume import SyntheticVolume
from tests.support.phantoms import Ellipsoid, PhantomSpec, head_ct, head_hu
from tests.support.synthetic_volumes import provenance, synthetic_volume

SOURCE = PhantomSpec(
    rows=64,
    columns=64,
    pixel_spacing_mm=(4.0, 4.0),
    slice_distances_mm=(-30.0, 0.0, 30.0),
    gantry_tilt_deg=11.0,
    parts=(Ellipsoid((35.0, 25.0, 5.0), (18.0, 22.0, 40.0), 200.0),),  # left from right
    patient_name="Äther^Zoë",
    extra={"PatientWeight": "70", "IssuerOfPatientID": "HOSPITAL"},
)
#: HU to T1-like intensity: air, fat bright, fluid dark, grey, white, bone dark
_HU = (-1024.0, -200.0, -100.0, -20.0, 5.0, 29.0, 38.0, 60.0, 400.0, 3000.0)
_T1 = (0.0, 0.0, 0.9, 0.5, 0.25, 0.75, 0.55, 0.5, 0.12, 0.1)


def t1_like(instances: Sequence[Dataset], spec: PhantomSpec) -> SyntheticVolume:
    """A volume with the phantom's own anatomy at its true position."""
    volume = synthetic_volume(instances, rows=64, columns=48, pixel_mm=4.0, spacing_mm=10.0)
    grid = volume.grid
    r = np.arange(grid.rows)[:, None, None] * grid.pixel_mm * grid.column_direction
    c = np.arange(grid.columns)[None, :, None] * grid.pixel_mm * grid.row_direction
    bare = replace(spec, table=False)
    hu = np.stack(
        [
            head_hu(grid.plane_origin_mm(t.distance_mm) + r + c, bare)
            for t in volume.prepared.targets
        ]
    )
    head = hu > -200.0
    texture = np.random.default_rng(0).normal(0.0, 0.01, hu.shape)
    intensity = np.where(head, np.clip(np.interp(hu, _HU, _T1) + texture, 0.02, 1.0), 0.0)
    uncertainty = np.where(head, 0.03 + 3.0 * np.abs(texture), 0.0)
    return replace(
        volume,
        intensity=intensity.astype(np.float32),
        uncertainty=uncertainty.astype(np.float32),
        head=head,
        meaning=UncertaintyInterpretation(
            alpha=0.1, subjects=25, untrusted_above=0.05
        ),  # every slice is above it
    )


@dataclass
class EditableSet:
    """A written set, parsed: edit it in place, then ``derived`` encodes it again."""

    provenance: Provenance
    source: list[Dataset]
    objects: list[tuple[str, Dataset]]  #: (kind, data set) in the order of sending
    companions: tuple[str, ...] = ()
    mr_form: str = "classic"
    records: Callable[[list[DerivedInstance]], list[DerivedInstance]] = list

    @classmethod
    def of(
        cls,
        derived: DerivedSet,
        source: Sequence[Dataset],
        companions: Iterable[str],
        mr_form: str = "classic",
    ) -> EditableSet:
        objects = [(i.kind, dcmread(BytesIO(i.content))) for i in derived.instances]
        return cls(
            derived.provenance, copy.deepcopy(list(source)), objects, tuple(companions), mr_form
        )

    def of_kind(self, *kinds: str) -> list[Dataset]:
        return [dataset for kind, dataset in self.objects if kind in kinds]

    @property
    def mr(self) -> list[Dataset]:
        return self.of_kind("MR")

    @property
    def all(self) -> list[Dataset]:
        return [dataset for _, dataset in self.objects]

    def derived(self) -> DerivedSet:
        records = [_encode(kind, dataset) for kind, dataset in self.objects]
        return DerivedSet(provenance=self.provenance, instances=tuple(self.records(records)))


def _encode(kind: str, dataset: Dataset) -> DerivedInstance:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return DerivedInstance(
        kind=kind,
        sop_class_uid=str(dataset.get("SOPClassUID")),
        sop_instance_uid=str(dataset.get("SOPInstanceUID")),
        series_instance_uid=str(dataset.get("SeriesInstanceUID")),
        content=buffer.getvalue(),
    )


def source_and_provenance(spec: PhantomSpec = SOURCE) -> tuple[list[Dataset], Provenance]:
    source = head_ct(spec)
    return source, provenance(source_series_uid=str(source[0].SeriesInstanceUID))


def stored(dataset: Dataset) -> np.ndarray:
    """Pixels of an MR slice, an editable copy."""
    return np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns).copy()


def store(dataset: Dataset, pixels: np.ndarray) -> None:
    dataset.PixelData = np.ascontiguousarray(pixels.astype("<u2")).tobytes()
