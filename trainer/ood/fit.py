"""Fit the known domain of a bundle from series of training people, each scored without itself.

The Gaussians and their scales are fitted anew with each person left out, and that person's series
are scored by them: held-out scores of people of whom the fit knew nothing. The threshold is their
quantile, each person of equal weight (after Lee, Barber and Willett, "Distribution-free inference
with hierarchical data", arXiv 2306.06342), so that at most the wanted share of the series of a new
person from the same simulation is expected above it. With fewer than 19 people no quantile can
promise 5 %: the largest score is taken, and one share in people + 1 is what is promised.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.ood import EmbeddingDistribution, Gaussian, OodFeatures, OodModel, Vectors
from rebrain_node.steps.ood import FRAME, PICTURE, RANGE_MM

KNOT_MM = 10.0
#: width of the kernel by which slices near a knot count for it
_NEAR_MM = 8.0
#: share of the correlation that is taken away: few people cannot tell it well
_SHRINKAGE = 0.2
#: directions of the embedding that are looked at
AXES = 16
_USUAL = 95.0
FALSE_REFUSALS = 0.05


@dataclass(frozen=True)
class InDistributionSeries:
    """A series in domain, and whose it is."""

    person: str
    look: OodFeatures


def fit(
    series: Sequence[InDistributionSeries], encoder_sha256: str | None, pixel_mm: float
) -> OodModel:
    """Fit Gaussians to all series and the threshold to the scores with each person left out.

    Parameters
    ----------
    series : sequence of Sound
        Of two people at least; with embeddings where an encoder is named.
    encoder_sha256 : str or None
        Of the encoder that made the embeddings.
    pixel_mm : float
        Of the grid on which the looks were taken.

    Raises
    ------
    ValueError
        All series are of one person.
    """
    people = sorted({sound.person for sound in series})
    if len(people) < 2:
        raise ValueError(f"{len(people)} person has series; give two at least, better 19")
    raw = np.zeros((len(series), 2 + (encoder_sha256 is not None)))
    for person in people:
        without = [sound.look for sound in series if sound.person != person]
        gaussians = _gaussians(without, encoder_sha256)
        for row, sound in enumerate(series):
            if sound.person == person:
                raw[row] = _distances(sound.look, gaussians)
    scales = np.percentile(raw, _USUAL, axis=0)
    scores = (raw / scales).max(axis=1)
    threshold = threshold_of(scores, [sound.person for sound in series], FALSE_REFUSALS)
    frame, picture, embedding = _gaussians([sound.look for sound in series], encoder_sha256)
    scaled = [
        g.model_copy(update={"scale": float(s)})
        for g, s in zip((frame, picture), scales, strict=False)
    ]
    if embedding is not None:
        usual = embedding.usual.model_copy(update={"scale": float(scales[2])})
        embedding = embedding.model_copy(update={"usual": usual})
    return OodModel(
        template_sha256=load_head_template().digest,
        pixel_mm=pixel_mm,
        frame=scaled[0],
        picture=scaled[1],
        embedding=embedding,
        threshold=threshold,
        false_refusals=max(FALSE_REFUSALS, 1.0 / (len(people) + 1)),
        people=len(people),
        series=len(series),
        calibration_sha256=_digest(series),
    )


def threshold_of(scores: NDArray[np.float64], people: Sequence[str], share: float) -> float:
    """Return the quantile that at most ``share`` of a new person's series lie above.

    Parameters
    ----------
    scores : ndarray
        (n,) of held-out series.
    people : sequence of str
        (n,) whose they are.
    """
    names, of, counts = np.unique(np.array(people), return_inverse=True, return_counts=True)
    order = np.argsort(scores)
    level = np.cumsum(1.0 / (counts[of[order]] * (len(names) + 1)))
    enough = np.flatnonzero(level >= 1.0 - share - 1e-9)
    return float(scores[order][enough[0] if len(enough) else -1])


def _gaussians(
    looks: Sequence[OodFeatures], encoder_sha256: str | None
) -> tuple[Gaussian, Gaussian, EmbeddingDistribution | None]:
    position = np.concatenate([look.position_mm for look in looks])
    knots = np.arange(RANGE_MM[0], RANGE_MM[1] + 1.0, KNOT_MM)
    frames = np.concatenate([look.frame for look in looks])
    frame = gaussian(FRAME, frames, np.zeros(len(frames)), np.zeros(1))
    pictures = np.concatenate([look.picture for look in looks])
    picture = gaussian(PICTURE, pictures, position, knots)
    if encoder_sha256 is None:
        return frame, picture, None
    embeddings = np.concatenate([_embeddings(look) for look in looks])
    axes = np.linalg.svd(embeddings, full_matrices=False)[2][:AXES]
    names = (*(f"axis {k}" for k in range(1, len(axes) + 1)), "left over")
    bare = EmbeddingDistribution(
        encoder_sha256=encoder_sha256, axes=_rows(axes), usual=_standard(names)
    )
    usual = gaussian(names, bare.vectors(embeddings), position, knots)
    return frame, picture, bare.model_copy(update={"usual": usual})


def gaussian(
    names: tuple[str, ...], vectors: Vectors, position_mm: NDArray[np.float64],
    knots_mm: NDArray[np.float64],
) -> Gaussian:  # fmt: skip
    """Fit mean and spread at each knot and one correlation, shrunk, for all.

    Parameters
    ----------
    vectors : Vectors
        (n, d); nan where a number is not known.
    position_mm : ndarray
        (n,).
    knots_mm : ndarray
        (k,) rising.
    """
    near = np.exp(-0.5 * ((position_mm[:, None] - knots_mm) / _NEAR_MM) ** 2)  # (n, k)
    known = np.isfinite(vectors)
    weight = np.maximum(near.T @ known, 1e-9)
    mean = near.T @ np.where(known, vectors, 0.0) / weight
    off = vectors - _between(mean, position_mm, knots_mm)
    sd = np.sqrt(near.T @ np.where(known, off, 0.0) ** 2 / weight) + 1e-6
    standard = np.where(known, off, 0.0) / _between(sd, position_mm, knots_mm)
    correlation = standard.T @ standard / len(standard)
    diagonal = np.diag(np.diag(correlation))
    shrunk = (1 - _SHRINKAGE) * correlation + _SHRINKAGE * diagonal
    precision = np.linalg.inv(shrunk + 1e-6 * np.eye(len(names)))
    return Gaussian(
        names=names,
        knots_mm=tuple(map(float, knots_mm)),
        mean=_rows(mean),
        sd=_rows(sd),
        precision=_rows(precision),
        scale=1.0,
    )


def _between(
    table: NDArray[np.float64], position_mm: NDArray[np.float64], knots_mm: NDArray[np.float64]
) -> Vectors:
    return np.stack([np.interp(position_mm, knots_mm, column) for column in table.T], axis=1)


def _standard(names: tuple[str, ...]) -> Gaussian:
    size = len(names)
    return Gaussian(
        names=names,
        knots_mm=(0.0,),
        mean=_rows(np.zeros((1, size))),
        sd=_rows(np.ones((1, size))),
        precision=_rows(np.eye(size)),
        scale=1.0,
    )


def _distances(
    look: OodFeatures, gaussians: tuple[Gaussian, Gaussian, EmbeddingDistribution | None]
) -> list[float]:
    frame, picture, embedding = gaussians
    found = [
        frame.distance(frame.deviations(look.frame, np.zeros(1))),
        picture.distance(picture.deviations(look.picture, look.position_mm)),
    ]
    if embedding is not None:
        vectors = embedding.vectors(_embeddings(look))
        usual = embedding.usual
        found.append(usual.distance(usual.deviations(vectors, look.position_mm)))
    return found


def _embeddings(look: OodFeatures) -> Vectors:
    if look.embeddings is None:
        raise ValueError("a series has no embeddings, but an encoder is named")
    return look.embeddings.astype(np.float64)


def _rows(table: NDArray[np.floating]) -> tuple[tuple[float, ...], ...]:
    """Round to six digits: the file is read by people, too."""
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in table)


def _digest(series: Sequence[InDistributionSeries]) -> str:
    digest = hashlib.sha256()
    for sound in series:
        digest.update(sound.person.encode())
        for array in (sound.look.position_mm, sound.look.frame, sound.look.picture):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
