"""Fit the OOD model of a bundle to in-distribution series of training subjects.

The Gaussians and their scales are fitted again without each subject, and the series of that subject
are scored by the fit to the others. The threshold is the quantile of these held-out scores, with
equal weight of each subject (after Lee, Barber and Willett, "Distribution-free inference with
hierarchical data", arXiv 2306.06342): of the series of a new subject from the same simulation at
most the share `FALSE_REFUSALS` is expected above it. For fewer than 19 subjects no quantile
guarantees 5 %; then the largest score is the threshold, which guarantees 1 / (subjects + 1).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebrain_node.errors import RebrainError
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.ood import EmbeddingDistribution, Gaussian, OodFeatures, OodModel, Vectors
from rebrain_node.steps.ood import FRAME, PICTURE, RANGE_MM

KNOT_MM = 10.0
_KERNEL_SD_MM = 8.0  # weights of slices near a knot
_SHRINKAGE = 0.2  # of the correlation, which few subjects estimate poorly
AXES = 16  # principal coordinates of the embedding
_SCALE_PERCENTILE = 95.0  # the distance of this percentile is a score of 1
FALSE_REFUSALS = 0.05


class OodFitError(RebrainError):
    """No OOD model can be fitted; the message says why."""


@dataclass(frozen=True)
class InDistributionSeries:
    """The features of a series, and its subject."""

    subject: str
    features: OodFeatures


def fit(
    series: Sequence[InDistributionSeries], encoder_sha256: str | None, pixel_mm: float
) -> OodModel:
    """Fit Gaussians to all series, and the threshold to leave-one-subject-out scores.

    Parameters
    ----------
    series : sequence of InDistributionSeries
        Of at least two subjects; with embeddings if there is an encoder.
    encoder_sha256 : str or None
        Of the encoder of the embeddings.
    pixel_mm : float
        Of the grid of the features.

    Raises
    ------
    OodFitError
        All series are of one subject.
    """
    subjects = sorted({each.subject for each in series})
    if len(subjects) < 2:
        raise OodFitError(
            f"series of {len(subjects)} subject that no input check refuses; at least 2 subjects "
            "are needed, 19 for a threshold that guarantees 5 %"
        )
    distances = np.zeros((len(series), 2 + (encoder_sha256 is not None)))
    for subject in subjects:
        others = [each.features for each in series if each.subject != subject]
        gaussians = _gaussians(others, encoder_sha256)
        for row, each in enumerate(series):
            if each.subject == subject:
                distances[row] = _distances(each.features, gaussians)
    scales = np.percentile(distances, _SCALE_PERCENTILE, axis=0)
    scores = (distances / scales).max(axis=1)
    threshold = threshold_of(scores, [each.subject for each in series], FALSE_REFUSALS)
    frame, picture, embedding = _gaussians([each.features for each in series], encoder_sha256)
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
        false_refusals=max(FALSE_REFUSALS, 1.0 / (len(subjects) + 1)),
        people=len(subjects),
        series=len(series),
        calibration_sha256=_digest(series),
    )


def threshold_of(scores: NDArray[np.float64], subjects: Sequence[str], share: float) -> float:
    """Return the score that at most ``share`` of the series of a new subject exceed.

    Parameters
    ----------
    scores, subjects : ndarray and sequence of str
        (n,) of held-out series.
    """
    names, owner, counts = np.unique(np.array(subjects), return_inverse=True, return_counts=True)
    order = np.argsort(scores)
    level = np.cumsum(1.0 / (counts[owner[order]] * (len(names) + 1)))
    enough = np.flatnonzero(level >= 1.0 - share - 1e-9)
    return float(scores[order][enough[0] if len(enough) else -1])


def _gaussians(
    features: Sequence[OodFeatures], encoder_sha256: str | None
) -> tuple[Gaussian, Gaussian, EmbeddingDistribution | None]:
    position = np.concatenate([each.position_mm for each in features])
    knots = np.arange(RANGE_MM[0], RANGE_MM[1] + 1.0, KNOT_MM)
    frames = np.concatenate([each.frame for each in features])
    frame = gaussian(FRAME, frames, np.zeros(len(frames)), np.zeros(1))
    pictures = np.concatenate([each.picture for each in features])
    picture = gaussian(PICTURE, pictures, position, knots)
    if encoder_sha256 is None:
        return frame, picture, None
    embeddings = np.concatenate([_embeddings(each) for each in features])
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
    """Fit mean and standard deviation at each knot, and one shrunk correlation for all knots.

    Parameters
    ----------
    vectors : Vectors
        (n, d); nan where a feature is unknown.
    position_mm, knots_mm : ndarray
        (n,) and (k,) rising.
    """
    near = np.exp(-0.5 * ((position_mm[:, None] - knots_mm) / _KERNEL_SD_MM) ** 2)  # (n, k)
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
    features: OodFeatures, gaussians: tuple[Gaussian, Gaussian, EmbeddingDistribution | None]
) -> list[float]:
    frame, picture, embedding = gaussians
    distances = [
        frame.distance(frame.deviations(features.frame, np.zeros(1))),
        picture.distance(picture.deviations(features.picture, features.position_mm)),
    ]
    if embedding is not None:
        vectors = embedding.vectors(_embeddings(features))
        usual = embedding.usual
        distances.append(usual.distance(usual.deviations(vectors, features.position_mm)))
    return distances


def _embeddings(features: OodFeatures) -> Vectors:
    if features.embeddings is None:
        raise ValueError("a series has no embeddings, but an encoder was given")
    return features.embeddings.astype(np.float64)


def _rows(table: NDArray[np.floating]) -> tuple[tuple[float, ...], ...]:
    """Round to six digits, for readers of the file."""
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in table)


def _digest(series: Sequence[InDistributionSeries]) -> str:
    digest = hashlib.sha256()
    for each in series:
        digest.update(each.subject.encode())
        for array in (each.features.position_mm, each.features.frame, each.features.picture):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
