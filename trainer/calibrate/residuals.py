"""Series of heads through the node's own steps, and how far the result is from the truth."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rebrain_node.domain.volume import FloatArray, Guide, MaskArray, SliceKind, SyntheticVolume
from rebrain_node.engine.loaded import LoadedModel
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.recipe import Recipe
from rebrain_node.steps.estimate import scale_inputs
from rebrain_node.steps.locate import locate
from rebrain_node.steps.preprocess import preprocess
from rebrain_node.steps.retrieve import embed, retrieve
from rebrain_node.steps.synthesise import synthesise
from trainer.calibrate.series import DrawnSeries

KINDS: tuple[SliceKind, ...] = ("measured", "retrieved", "interpolated")
SPREAD_SEEDS = 8


@dataclass(frozen=True)
class Residuals:
    """Slices of one person as drawn, and their errors, in order of drawing.

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
    spread : ndarray of float16 or None
        (k, rows, columns), standard deviation of samples; None where the walk has no noise.
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
    spread: NDArray[np.float16] | None
    inside: MaskArray
    kinds: tuple[SliceKind, ...]
    series: NDArray[np.int32]

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


@dataclass(frozen=True)
class NodeSteps:
    """The node's own steps with an opened bundle, on so many slices of a kind in each series."""

    model: LoadedModel
    recipe: Recipe
    per_kind: int

    def draw(self, series: DrawnSeries, rng: Generator) -> SyntheticVolume:
        """Take one series to its synthetic slices."""
        prepared = preprocess(series.source, self.recipe)
        frame = locate(prepared, load_head_template()) if self.recipe.retrieves else None
        model = self.model
        embeddings = embed(prepared, model.encoder, self.recipe) if model.encoder else None
        guides = retrieve(prepared, self.recipe, frame, embeddings, model.exemplars)
        some = chosen(guides, self.per_kind, rng)
        return synthesise(prepared, some, model.engine, self.recipe, int(rng.integers(2**31)))

    def spread(self, volume: SyntheticVolume) -> FloatArray | None:
        """Standard deviation of samples, (k, rows, columns); None where the walk has no noise."""
        if not is_noisy(self.recipe):
            return None
        samples = [
            synthesise(volume.prepared, volume.guides, self.model.engine, self.recipe, seed)
            for seed in range(SPREAD_SEEDS)
        ]
        return np.asarray(np.std([sample.intensity for sample in samples], axis=0))


def is_noisy(recipe: Recipe) -> bool:
    """Whether the noise field reaches the result: a walk of one evaluation starts and ends on y."""
    return len(recipe.sampling) > 1


def chosen(guides: Sequence[Guide], per_kind: int, rng: Generator) -> tuple[Guide, ...]:
    """Draw at most so many guides of every kind, in order of position."""
    kept: set[int] = set()
    for kind in KINDS:
        places = [k for k, guide in enumerate(guides) if guide.kind == kind]
        kept |= set(rng.permutation(places)[:per_kind].tolist())
    return tuple(guides[k] for k in sorted(kept))


def residuals_of(
    person: str, many: Sequence[DrawnSeries], path: NodeSteps, rng: Generator
) -> Residuals:
    """Draw every series of one person and hold it against the truth.

    Raises
    ------
    ValueError
        Nothing of the person's head with known truth was drawn.
    """
    rows = [
        (number, *row)
        for number, series in enumerate(many)
        for row in _rows(series, path.draw(series, rng), path)
    ]
    if not rows:
        raise ValueError(f"no slice of {person} shows a head whose truth is known")
    which, kinds, x, s, error, rule, spread, inside = zip(*rows, strict=True)
    return Residuals(
        person=person,
        x=np.stack(x),
        s=np.stack(s),
        error=np.stack(error),
        rule=np.stack(rule),
        spread=np.stack(spread) if is_noisy(path.recipe) else None,
        inside=np.stack(inside),
        kinds=tuple(kinds),
        series=np.array(which, dtype=np.int32),
    )


def _rows(
    series: DrawnSeries, volume: SyntheticVolume, path: NodeSteps
) -> Iterator[tuple[object, ...]]:
    """Kind, inputs, error, rule of thumb, spread and known head of every slice that shows any."""
    spread = path.spread(volume)
    spacing_mm = volume.prepared.spacing_mm
    for k, (x, s) in enumerate(scale_inputs(volume, path.recipe)):
        guide = volume.guides[k]
        truth, known = series.truth(volume.grid, guide.target.distance_mm, spacing_mm)
        inside = volume.head[k] & known
        if inside.any():
            yield (
                guide.kind,
                x[0].astype(np.float16),
                s[0],
                np.abs(volume.intensity[k] - truth).astype(np.float16),
                volume.uncertainty[k].astype(np.float16),
                None if spread is None else spread[k].astype(np.float16),
                inside,
            )


def joined(parts: Sequence[Residuals]) -> Residuals:
    """Put the slices of several people one after the other, to teach from."""
    return replace(
        parts[0],
        person="+".join(part.person for part in parts),
        x=np.concatenate([part.x for part in parts]),
        s=np.concatenate([part.s for part in parts]),
        error=np.concatenate([part.error for part in parts]),
        rule=np.concatenate([part.rule for part in parts]),
        spread=None,
        inside=np.concatenate([part.inside for part in parts]),
        kinds=tuple(kind for part in parts for kind in part.kinds),
        series=np.concatenate([part.series for part in parts]),
    )
