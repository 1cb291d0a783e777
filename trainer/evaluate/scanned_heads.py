"""Whole heads with known T1, scanned in thick slices and synthesised by the steps of the node.

The demonstration head of the node is one of them; others are made from tissue maps. Volumes are
(z, y, x) at 1 mm along LPS; the scan is the same, number by number, each time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from time import monotonic

import numpy as np
from scipy import ndimage as ndi

from rebrain_node.domain.volume import (
    FloatArray,
    Guide,
    MillimetreArray,
    PreparedVolume,
    SourceVolume,
    SyntheticVolume,
)
from rebrain_node.engine.loaded import LoadedModel
from rebrain_node.engine.open import open_scale
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.recipe import Recipe
from rebrain_node.steps.estimate import estimate
from rebrain_node.steps.locate import locate
from rebrain_node.steps.preprocess import preprocess
from rebrain_node.steps.retrieve import embed, retrieve
from rebrain_node.steps.synthesise import synthesise
from trainer.calibrate.run import ENGINE, load_model
from trainer.data.dataset import Mask, Volume
from trainer.data.masks import inside_skull_in_window
from trainer.simulate.hounsfield import AIR_HU

DEMONSTRATION = "demonstration head"
_SEED = 27
_THICKNESS_MM, _TILT_DEG, _PIXEL_MM, _ROWS = 5.0, 12.0, 0.65, 352  # as `rebrain-node demo`
_DEPTHS = (-0.4, -0.2, 0.0, 0.2, 0.4)  # averaged within a slice, of its thickness
_NOISE_HU, _NOISE_PIXELS = 4.0, 0.8


@dataclass(frozen=True, kw_only=True)
class WholeHead:
    """One head whose T1 is known at every voxel."""

    name: str
    hu: Volume  #: (z, y, x), HU without noise
    t1: Volume  #: (z, y, x), canonical T1, 0 to 1
    #: (z, y, x) by kind: what was planted, 0 to 1
    planted: Mapping[str, Volume] = field(default_factory=dict)

    def at(self, volume: Volume, points: MillimetreArray) -> FloatArray:
        """Interpolate a volume linearly at points (..., 3), x, y, z mm from its first voxel."""
        index = np.moveaxis(points, -1, 0)[::-1]
        outside = float(volume[0, 0, 0])
        values = ndi.map_coordinates(volume, index, order=1, mode="constant", cval=outside)
        return np.asarray(values, dtype=np.float32)

    def scanned(self, shift_hu: float = 0.0) -> SourceVolume:
        """Scan the head: slices of 5 mm, tilted by 12 degrees, 4 HU of noise.

        `shift_hu` is added to all but air, as by a scanner that reads high or low.
        """
        scan = self._scan
        shifted = np.where(scan.hu > -500.0, scan.hu + np.float32(shift_hu), scan.hu)
        return replace(scan, hu=shifted.astype(np.float32))

    @cached_property
    def _scan(self) -> SourceVolume:
        """The scan without a shift, made once."""
        tilt = np.radians(_TILT_DEG)
        across = np.array([1.0, 0.0, 0.0])
        down = np.array([0.0, np.cos(tilt), np.sin(tilt)])
        size = np.array(self.hu.shape[::-1], dtype=np.float64) - 1.0
        corner = size / 2.0 - (across + down) * _PIXEL_MM * (_ROWS - 1) / 2.0
        heights = np.arange(-size[2] / 2.0 + 18.0, size[2] / 2.0 + 2.0, _THICKNESS_MM)
        places = corner + heights[:, None] * np.array([0.0, 0.0, 1.0])
        rng = np.random.default_rng(_SEED)
        hu = np.stack([self._slice(place, across, down, rng) for place in places])
        count = len(hu)
        return SourceVolume(
            hu=hu,
            positions_mm=places,
            row_direction=across,
            column_direction=down,
            pixel_spacing_mm=(_PIXEL_MM, _PIXEL_MM),
            thickness_mm=(_THICKNESS_MM,) * count,
            sop_instance_uids=tuple(f"2.25.{k + 1}" for k in range(count)),
            frame_numbers=(None,) * count,
            frame_of_reference_uid="2.25.1",
            padding=np.zeros(hu.shape, dtype=np.bool_),
        )

    def _slice(
        self,
        place: MillimetreArray,
        across: MillimetreArray,
        down: MillimetreArray,
        rng: np.random.Generator,
    ) -> FloatArray:
        row, column = np.mgrid[:_ROWS, :_ROWS] * _PIXEL_MM
        plane = place + row[..., None] * down + column[..., None] * across
        normal = np.cross(across, down) * _THICKNESS_MM
        clean = np.mean([self.at(self.hu, plane + depth * normal) for depth in _DEPTHS], axis=0)
        noise = ndi.gaussian_filter(rng.standard_normal(clean.shape), _NOISE_PIXELS)
        return np.asarray(np.maximum(clean + noise * (_NOISE_HU / noise.std()), AIR_HU))

    def on(self, volume: Volume, result: SyntheticVolume, thickness_mm: float = 0.0) -> FloatArray:
        """Interpolate a volume of the head at the voxels of a result, (slice, row, column).

        `thickness_mm` averages as a slice so thick does; 0 takes the plane in its middle.
        """
        grid = result.grid
        row, column = np.mgrid[: grid.rows, : grid.columns] * grid.pixel_mm
        plane = row[..., None] * grid.column_direction + column[..., None] * grid.row_direction
        depths = _DEPTHS if thickness_mm else (0.0,)
        return np.stack(
            [
                np.mean(
                    [
                        self.at(
                            volume,
                            grid.plane_origin_mm(guide.target.distance_mm + depth * thickness_mm)
                            + plane,
                        )
                        for depth in depths
                    ],
                    axis=0,
                )
                for guide in result.guides
            ]
        )


def demonstration_head() -> WholeHead:
    """Read the head that ships with the node; no weight has seen its anatomy."""
    file = resources.files("rebrain_node") / "demo_head" / "head.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        hu = arrays["hu"].astype(np.float32)
        return WholeHead(
            name=DEMONSTRATION, hu=hu, t1=arrays["t1"].astype(np.float32) / np.float32(255)
        )


@dataclass(frozen=True, kw_only=True)
class NodeResult:
    """One series synthesised by the steps of the node."""

    volume: SyntheticVolume
    seconds: float  #: from the measured slices in HU to the synthetic volume

    @property
    def image(self) -> Volume:
        """(slice, row, column), intensity 0 to 1."""
        return self.volume.intensity

    @property
    def measured(self) -> Mask:
        """(slice,), true where a slice was measured."""
        return np.array([guide.kind == "measured" for guide in self.volume.guides])

    @cached_property
    def brain(self) -> Mask:
        """(slice, row, column), inside the skull in the measured CT; interpolated between."""
        return inside_skull(self.volume.prepared, self.volume.guides)

    @property
    def hu(self) -> Volume:
        """(measured slice, row, column), HU as scanned, on the grid of the result."""
        prepared = self.volume.prepared
        return prepared.hu if prepared.tissue is None else prepared.hu - prepared.tissue.shift_hu


def inside_skull(prepared: PreparedVolume, guides: tuple[Guide, ...]) -> Mask:
    """Return what lies inside the skull at every target, (slice, row, column)."""
    window = np.clip(prepared.hu / np.float32(80), 0, 1)  # levelled or not: bone is saturated
    masks = np.stack([inside_skull_in_window(plane) for plane in window]).astype(np.float32)
    mixed = [
        (1 - guide.target.alpha) * masks[guide.target.below]
        + guide.target.alpha * masks[guide.target.above]
        for guide in guides
    ]
    return np.asarray(np.stack(mixed) > 0.5)


@dataclass(frozen=True)
class NodeRunner:
    """A bundle with its networks opened, and the steps of the node from CT to volume."""

    bundle: ModelBundle
    model: LoadedModel

    @classmethod
    def of(cls, bundle: ModelBundle) -> "NodeRunner":
        """Open the networks of a bundle; raises `BundleError` or `EngineError`."""
        return cls(bundle, load_model(bundle))

    @property
    def recipe(self) -> Recipe:
        """The recipe of the bundle."""
        return self.bundle.recipe

    def result(self, source: SourceVolume, *, measured_only: bool = False) -> NodeResult:
        """Synthesise a series; `measured_only` leaves the positions between slices out."""
        start = monotonic()
        prepared = preprocess(source, self.recipe)
        if measured_only:
            measured = tuple(t for t in prepared.targets if t.below == t.above)
            gap_mm = float(np.median(np.diff([t.distance_mm for t in measured])))
            prepared = replace(prepared, targets=measured, spacing_mm=gap_mm)
        frame = embeddings = None
        if self.model.encoder is not None:
            frame = locate(prepared, self.model.template or load_head_template())
            embeddings = embed(prepared, self.model.encoder, self.recipe)
        guides = retrieve(prepared, self.recipe, frame, embeddings, self.model.exemplars)
        volume = synthesise(prepared, guides, self.model.engine, self.recipe, _SEED)
        return NodeResult(volume=volume, seconds=monotonic() - start)

    def uncertainty(self, result: NodeResult) -> Volume | None:
        """Half-widths of the intervals of a result, (slice, row, column); None: not calibrated."""
        if self.bundle.calibration is None:
            return None
        scale = open_scale(ENGINE, self.bundle, 1)
        estimated = estimate(result.volume, self.recipe, scale, self.bundle.calibration)
        return estimated.uncertainty
