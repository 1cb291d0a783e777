"""Series of held-out heads through the node's own steps, and how far they are from the truth."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rebrain_node.domain.volume import (
    FloatArray,
    Guide,
    MaskArray,
    PreparedVolume,
    SliceKind,
    SyntheticVolume,
)
from rebrain_node.model.headtemplate import load_head_template
from rebrain_node.model.recipe import Recipe
from rebrain_node.ports import Model
from rebrain_node.steps.estimate import scale_inputs
from rebrain_node.steps.locate import locate
from rebrain_node.steps.preprocess import preprocess
from rebrain_node.steps.retrieve import retrieve
from rebrain_node.steps.synthesise import synthesise
from trainer.calibrate.series import DrawnSeries

KINDS: tuple[SliceKind, ...] = ("measured", "retrieved", "interpolated")


@dataclass(frozen=True)
class Residuals:
    """Slices of one person as drawn, and their errors; order is that of drawing.

    Attributes
    ----------
    x : ndarray of float16
        (k, 5, rows, columns), what the residual-scale head is given.
    s : FloatArray
        (k, 2), the same.
    error : ndarray of float16
        (k, rows, columns), absolute, in units of intensity.
    rule : ndarray of float16
        (k, rows, columns), the uncertainty by rule of thumb.
    inside : MaskArray
        (k, rows, columns), head whose truth is known.
    kinds : tuple of SliceKind
        (k,).
    series : ndarray of int32
        (k,), which series of the person.
    """

    person: str
    x: NDArray[np.float16]
    s: FloatArray
    error: NDArray[np.float16]
    rule: NDArray[np.float16]
    inside: MaskArray
    kinds: tuple[SliceKind, ...]
    series: NDArray[np.int32]
    seconds_per_slice: float  #: of synthesis alone

    @property
    def digest(self) -> str:
        """SHA-256 that names every residual."""
        content = hashlib.sha256(self.person.encode())
        for values in (self.x, self.s, self.error, self.inside):
            content.update(np.ascontiguousarray(values).tobytes())
        return content.hexdigest()

    def of_kind(self, kind: SliceKind) -> NDArray[np.bool_]:
        """Slices of a kind, (k,)."""
        return np.array([each == kind for each in self.kinds], dtype=bool)


def drawn(
    series: DrawnSeries, model: Model, recipe: Recipe, per_kind: int, rng: Generator
) -> tuple[SyntheticVolume, float]:
    """Take one series down the path to its synthetic slices, `per_kind` of each kind at most.

    Returns
    -------
    volume : SyntheticVolume
    seconds : float
        Of the synthesis, per slice.
    """
    prepared = preprocess(series.source, recipe)
    guides = chosen(guides_of(prepared, model, recipe), per_kind, rng)
    begun = time.perf_counter()
    volume = synthesise(prepared, guides, model.engine, recipe, int(rng.integers(2**31)))
    return volume, (time.perf_counter() - begun) / len(guides)


def guides_of(prepared: PreparedVolume, model: Model, recipe: Recipe) -> tuple[Guide, ...]:
    """Guide every target as the node does; a held-out head is in no knowledge base."""
    frame = locate(prepared, load_head_template()) if recipe.retrieves else None
    return retrieve(prepared, recipe, frame, model.encoder, model.exemplars)


def chosen(guides: Sequence[Guide], per_kind: int, rng: Generator) -> tuple[Guide, ...]:
    """Draw at most so many guides of every kind, in order of position."""
    kept: set[int] = set()
    for kind in KINDS:
        places = [k for k, guide in enumerate(guides) if guide.kind == kind]
        kept |= set(rng.permutation(places)[:per_kind].tolist())
    return tuple(guides[k] for k in sorted(kept))


def residuals_of(
    person: str, drawn_from: Sequence[tuple[DrawnSeries, SyntheticVolume, float]], recipe: Recipe
) -> Residuals:
    """Hold the volumes of one person against the truth."""
    x, s, error, rule, inside, kinds, which = [], [], [], [], [], [], []
    for number, (series, volume, _) in enumerate(drawn_from):
        spacing_mm = volume.prepared.spacing_mm
        for k, (given, told) in enumerate(scale_inputs(volume, recipe)):
            distance_mm = volume.guides[k].target.distance_mm
            truth = series.truth(volume.grid, distance_mm, spacing_mm)
            known = volume.head[k] & series.known(volume.grid, distance_mm, spacing_mm)
            if not known.any():
                continue
            x.append(given[0].astype(np.float16))
            s.append(told[0])
            error.append(np.abs(volume.intensity[k] - truth).astype(np.float16))
            rule.append(volume.uncertainty[k].astype(np.float16))
            inside.append(known)
            kinds.append(volume.guides[k].kind)
            which.append(number)
    return Residuals(
        person=person,
        x=np.stack(x),
        s=np.stack(s),
        error=np.stack(error),
        rule=np.stack(rule),
        inside=np.stack(inside),
        kinds=tuple(kinds),
        series=np.array(which, dtype=np.int32),
        seconds_per_slice=float(np.median([seconds for _, _, seconds in drawn_from])),
    )


def joined(parts: Sequence[Residuals]) -> Residuals:
    """Put the slices of several people one after the other."""
    return replace(
        parts[0],
        person="+".join(part.person for part in parts),
        x=np.concatenate([part.x for part in parts]),
        s=np.concatenate([part.s for part in parts]),
        error=np.concatenate([part.error for part in parts]),
        rule=np.concatenate([part.rule for part in parts]),
        inside=np.concatenate([part.inside for part in parts]),
        kinds=tuple(kind for part in parts for kind in part.kinds),
        series=np.concatenate([part.series for part in parts]),
    )
