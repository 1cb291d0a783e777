"""In-plane registration of an exemplar onto the slices of the series beside its position.

A similarity transform (rotation, one scale, shift) found from the CT alone: started from the
outlines of both heads, then robust Gauss-Newton on the squared difference of the brain window,
on two levels. No library of registration, about 10 ms a slice, the same result on every run. The
node calls it for every retrieved slice, the trainer for every guided sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from rebrain_node.domain.volume import FloatArray, PlaneRegistration
from rebrain_node.model.resample import halved

#: a transform beyond these is a failed fit: the exemplar is left as it is
MOST_ROTATION_DEG: Final = 20.0
MOST_SCALE: Final = 1.25
MOST_SHIFT_MM: Final = 35.0

_AIR: Final = -0.95  # of [-1, 1]: what is brighter belongs to the head
_LEAST_HEAD: Final = 0.02  # share of the plane; less has no outline to start from
_SMOOTHING: Final = 1.0  # pixels
_ROBUST: Final = 0.3  # of [-1, 1]; larger differences count less
_DEEP_MM: Final = 12.0  # below the skin begins, at the earliest, the brain ...
_DEEP_WEIGHT: Final = 5.0  # ... which counts so much against skull and scalp
_STEPS: Final = (12, 6)  # at most, on the coarse and on the fine level
_CONVERGED: Final = 0.02  # pixels by which the corner of the plane still moves

_Values = npt.NDArray[np.float64]
_Parameters = npt.NDArray[np.float64]
#: (a, b, t, u): the pixel (r, c) from the middle of the series lies in the exemplar at
#: (a r - b c + t, b r + a c + u)
_IDENTITY: Final[_Parameters] = np.array([1.0, 0.0, 0.0, 0.0])


def register(exemplar: FloatArray, fixed: FloatArray, pixel_mm: float) -> PlaneRegistration | None:
    """Find how the exemplar has to be moved in its plane to lie on the head of the series.

    Parameters
    ----------
    exemplar, fixed : FloatArray
        (rows, columns), brain window in [-1, 1], even numbers of rows and columns.
    pixel_mm : float
        Of both.

    Returns
    -------
    PlaneRegistration or None
        None where a slice shows too little of a head, where the fit left the limits of this
        module, or where it brings the two no nearer than they were.
    """
    at = _start(exemplar, fixed)
    if at is None:
        return None
    coarse = _Level.of(halved(exemplar), halved(fixed), 2.0 * pixel_mm)
    at = coarse.fitted(at * (1.0, 1.0, 0.5, 0.5), _STEPS[0]) * (1.0, 1.0, 2.0, 2.0)
    fine = _Level.of(exemplar, fixed, pixel_mm)
    at = fine.fitted(at, _STEPS[1])
    if not fine.cost(at) < fine.cost(_IDENTITY):
        return None
    return _within_limits(at, pixel_mm)


def moved(plane: FloatArray, by: PlaneRegistration, pixel_mm: float, outside: float) -> FloatArray:
    """Resample a plane of half the grid onto the grid, moved by a registration.

    Parameters
    ----------
    plane : FloatArray
        (rows, columns), pixels of 2 x `pixel_mm`.
    pixel_mm : float
        Of the grid.
    outside : float
        Value of what lies beyond the plane.

    Returns
    -------
    FloatArray
        (2 rows, 2 columns), linear interpolation.
    """
    rows, columns = plane.shape
    turned = by.scale * np.exp(1j * np.radians(by.rotation_deg))
    row = (np.arange(2 * rows) - rows + 0.5)[:, None] * pixel_mm - by.posterior_mm
    column = (np.arange(2 * columns) - columns + 0.5)[None, :] * pixel_mm - by.left_mm
    own = (row + 1j * column) / turned / (2.0 * pixel_mm)
    places = np.stack([own.real + (rows - 1) / 2.0, own.imag + (columns - 1) / 2.0])
    image = ndimage.map_coordinates(plane, places, order=1, mode="constant", cval=outside)
    return np.asarray(image, dtype=np.float32)


@dataclass(frozen=True)
class _Level:
    """Both planes at one resolution, smoothed."""

    shape: tuple[int, int]  #: rows, columns
    #: exemplar, its derivatives along rows and along columns, flat
    images: tuple[_Values, _Values, _Values]
    fixed: FloatArray  #: (n,), where one of the heads may lie
    weight: FloatArray  #: (n,)
    row: _Values  #: (n,) from the middle, pixels
    column: _Values  #: (n,)

    @classmethod
    def of(cls, exemplar: FloatArray, fixed: FloatArray, pixel_mm: float) -> _Level:
        smooth, target = (ndimage.gaussian_filter(p, _SMOOTHING) for p in (exemplar, fixed))
        down, across = np.gradient(smooth)
        rows, columns = np.nonzero(np.maximum(smooth, target) > _AIR)
        height, width = exemplar.shape
        depth_mm = ndimage.distance_transform_edt(_outline(fixed)) * pixel_mm
        weight = np.where(depth_mm > _DEEP_MM, _DEEP_WEIGHT, 1.0)
        return cls(
            (height, width),
            (_flat(smooth), _flat(down), _flat(across)),
            target[rows, columns],
            weight[rows, columns],
            rows - (height - 1) / 2.0,
            columns - (width - 1) / 2.0,
        )

    def fitted(self, at: _Parameters, steps: int) -> _Parameters:
        """Improve the parameters by Gauss-Newton; stops where the plane hardly moves."""
        reach = np.hypot(*self.shape) / 2.0
        for _ in range(steps):
            image, down, across = self._sampled(self.images, at)
            error = image - self.fixed
            weight = self.weight / (1.0 + (error / _ROBUST) ** 2)
            slopes = np.empty((4, len(error)))
            slopes[0] = down * self.row + across * self.column
            slopes[1] = across * self.row - down * self.column
            slopes[2], slopes[3] = down, across
            weighted = slopes * weight
            step = np.linalg.lstsq(weighted @ slopes.T, -weighted @ error, rcond=None)[0]
            at = at + step
            if reach * np.hypot(*step[:2]) + np.hypot(*step[2:]) < _CONVERGED:
                break
        return at

    def cost(self, at: _Parameters) -> float:
        """Mean robust difference of the planes."""
        (image,) = self._sampled(self.images[:1], at)
        squared = ((image - self.fixed) / _ROBUST) ** 2
        return float(np.average(squared / (1.0 + squared), weights=self.weight))

    def _sampled(self, images: Sequence[_Values], at: _Parameters) -> list[_Values]:
        """Values of images of the exemplar where the points of the series lie in it.

        Linear, beyond the edge that of the edge; the weights are computed once for all images.
        """
        a, b, t, u = at
        height, width = self.shape
        down = np.clip(a * self.row - b * self.column + (t + (height - 1) / 2.0), 0, height - 1)
        across = np.clip(b * self.row + a * self.column + (u + (width - 1) / 2.0), 0, width - 1)
        row = np.minimum(down.astype(np.intp), height - 2)
        column = np.minimum(across.astype(np.intp), width - 2)
        down -= row
        across -= column
        both = down * across
        places = row * width + column
        corners = (
            (places, 1.0 - down - across + both),
            (places + 1, across - both),
            (places + width, down - both),
            (places + (width + 1), both),
        )
        return [sum(weight * image.take(place) for place, weight in corners) for image in images]


def _flat(plane: FloatArray) -> _Values:
    return np.asarray(plane, dtype=np.float64).ravel()


def _outline(plane: FloatArray) -> npt.NDArray[np.bool_]:
    """Head of a plane, its cavities included: all but the air that reaches an edge."""
    air, count = ndimage.label(plane <= _AIR)
    outside = np.zeros(count + 1, dtype=np.bool_)
    for edge in (air[0], air[-1], air[:, 0], air[:, -1]):
        outside[edge] = True
    outside[0] = False
    return np.asarray(~outside[air])


def _start(exemplar: FloatArray, fixed: FloatArray) -> _Parameters | None:
    """Bring the middle and the size of one outline onto those of the other."""
    outlines = [_outline(plane) for plane in (exemplar, fixed)]
    if min(outline.mean() for outline in outlines) < _LEAST_HEAD:
        return None
    middles = [np.argwhere(o).mean(axis=0) - (np.array(o.shape) - 1) / 2.0 for o in outlines]
    scale = np.sqrt(outlines[0].sum() / outlines[1].sum())
    shift = middles[0] - scale * middles[1]
    return np.array([scale, 0.0, *shift])


def _within_limits(at: _Parameters, pixel_mm: float) -> PlaneRegistration | None:
    """Return the inverse, which moves the exemplar; None beyond the limits."""
    if not 1.0 / MOST_SCALE <= np.hypot(at[0], at[1]) <= MOST_SCALE:
        return None
    turned = 1.0 / complex(at[0], at[1])
    shift = -complex(at[2], at[3]) * turned * pixel_mm
    rotation_deg = float(np.degrees(np.angle(turned)))
    if abs(rotation_deg) > MOST_ROTATION_DEG or not abs(shift) <= MOST_SHIFT_MM:
        return None
    return PlaneRegistration(
        rotation_deg=rotation_deg,
        scale=abs(turned),
        posterior_mm=shift.real,
        left_mm=shift.imag,
    )
