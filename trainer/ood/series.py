"""Simulated series, evaluated for the OOD model: in distribution, and with conditions.

Every series passes the steps of the node: input checks, preprocessing, head frame. The result is
cached in a folder, one file per series, so that a fit with another encoder takes seconds.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rebrain_node.domain.limits import Limits
from rebrain_node.domain.volume import SourceVolume
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.ood import OodFeatures
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.resample import halved
from rebrain_node.ports import Encoder
from rebrain_node.steps.check import check_volume
from rebrain_node.steps.locate import locate
from rebrain_node.steps.ood import frame_vector, looked_at, statistics
from rebrain_node.steps.preprocess import preprocess
from trainer.ood.fit import InDistributionSeries
from trainer.simulate.conditions import BODIES, OF_THE_HEAD, OF_THE_SCAN, OUTSIDE, scanner_noise
from trainer.simulate.hounsfield import Tissues
from trainer.simulate.labels import LabelHead
from trainer.simulate.scanner import Pose, cut, series_of

IN_DISTRIBUTION = "in domain"  # also part of seeds and of names of cached files
#: what must be detected; `trainer.evaluate.input_checks` measures other conditions
CONDITIONS = (
    "METAL", "CRANIECTOMY", "NOISE", "scale shifted", "upside down", "back to front",
    "water cylinder", *BODIES,
)  # fmt: skip
#: so many series of a subject are scored even if an input check refuses them
ALWAYS_SCORED = 1
_FEATURES = ("position_mm", "frame", "picture")  # names of cached arrays


@dataclass(frozen=True, kw_only=True)
class EvaluatedSeries:
    """One series: result of the input checks, and features for the OOD score.

    Attributes
    ----------
    number : int
        Of the series among those of the subject and condition, from 0.
    refused, flagged : tuple of str
        Codes of the input checks.
    features : OodFeatures or None
        None if the series could not be prepared, or was refused and is not `ALWAYS_SCORED`.
    slices : ndarray of uint8
        (n, rows, columns) of the features, brain window 0 to 255 at half the grid.
    """

    subject: str
    condition: str
    number: int
    refused: tuple[str, ...]
    flagged: tuple[str, ...]
    features: OodFeatures | None = None
    slices: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 1, 1), np.uint8))

    def embedded(self, encoder: Encoder) -> "EvaluatedSeries":
        """Return the series with the embeddings of its slices."""
        if self.features is None:
            return self
        images = self.slices.astype(np.float32) / np.float32(127.5) - np.float32(1)
        vectors = np.stack([encoder.embed(image[None, None]) for image in images])
        return replace(self, features=replace(self.features, embeddings=vectors))


@dataclass(frozen=True, kw_only=True)
class SeriesEvaluator:
    """Evaluates series by the limits of the node and the recipe of a bundle."""

    limits: Limits
    recipe: Recipe

    def evaluate(self, volume: SourceVolume, name: tuple[str, str, int]) -> EvaluatedSeries:
        """Check a series named (subject, condition, number) and compute its features."""
        subject, condition, number = name
        findings = check_volume(volume, self.limits)
        refused = [f.code for f in findings if f.severity == "refuse"]
        flagged = tuple(dict.fromkeys(f.code for f in findings if f.severity == "flag"))
        features, slices = None, np.zeros((0, 1, 1), np.uint8)
        if not refused or number < ALWAYS_SCORED:
            try:
                features, slices = self._features(volume)
            except SeriesRejectedError as error:
                refused += [finding.code for finding in error.findings]
        return EvaluatedSeries(
            subject=subject,
            condition=condition,
            number=number,
            refused=tuple(dict.fromkeys(refused)),
            flagged=flagged,
            features=features,
            slices=slices,
        )

    def _features(self, volume: SourceVolume) -> tuple[OodFeatures, NDArray[np.uint8]]:
        prepared = preprocess(volume, self.recipe)
        frame = locate(prepared, load_head_template())
        chosen = looked_at(prepared, frame)
        brain = halved(self.recipe.brain_window.apply(prepared.hu[chosen]))
        features = OodFeatures(
            position_mm=frame.position_mm[chosen],
            frame=frame_vector(frame),
            picture=statistics(prepared)[chosen],
        )
        return features, np.rint((brain + 1) * 127.5).astype(np.uint8)


def in_distribution(series: Iterable[EvaluatedSeries]) -> list[InDistributionSeries]:
    """Return the series that the OOD model is fitted to: those that no input check refuses."""
    return [
        InDistributionSeries(each.subject, each.features)
        for each in series
        if each.features is not None and not each.refused
    ]


def simulated_series(
    head: Tissues | LabelHead, subject: str, number: int, seed: int, conditions: tuple[str, ...]
) -> Iterator[tuple[str, Callable[[], SourceVolume]]]:
    """Yield each condition and the function that simulates its series.

    All conditions of a number share HU, pose and noise level. Each has its own seed, so that none
    depends on which others are simulated.
    """

    def sample_rng(condition: str) -> Generator:
        return np.random.default_rng([seed, number, *subject.encode(), 0, *condition.encode()])

    rng = sample_rng("")
    person, pose = head.drawn(rng), Pose.drawn(rng)
    hu = person.hu
    raw = cut(hu, pose)

    def scanned(condition: str) -> SourceVolume:
        own = sample_rng(condition)
        change = OF_THE_HEAD.get(condition)
        slices = scanner_noise(
            raw if change is None else cut(change(hu, person.anatomy, own), pose), own
        )
        if condition in OF_THE_SCAN:
            slices = OF_THE_SCAN[condition](slices, pose.pixel_mm, own)
        volume = series_of(slices, pose)
        if condition in OUTSIDE:
            return OUTSIDE[condition].change(volume, own)
        return BODIES[condition](volume, own) if condition in BODIES else volume

    for condition in conditions:
        yield condition, lambda condition=condition: scanned(condition)  # type: ignore[misc] # bound now


def cached_series(
    evaluator: SeriesEvaluator,
    head: Callable[[], Tissues | LabelHead],
    subject: str,
    wanted: Mapping[int, tuple[str, ...]],
    seed: int, folder: Path,
) -> Iterator[EvaluatedSeries]:  # fmt: skip
    """Yield the series of a subject; those missing in the folder are simulated and written.

    Parameters
    ----------
    head : callable
        Reads the tissues; called only if a series is missing.
    wanted : mapping
        Conditions of each number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tissues: Tissues | LabelHead | None = None
    for number, conditions in wanted.items():
        paths = {
            c: folder / f"{subject}-{seed}-{number}-{c.replace(' ', '_')}.npz" for c in conditions
        }
        missing = tuple(c for c in conditions if not paths[c].exists())
        if missing:
            tissues = tissues or head()
            for condition, simulate in simulated_series(tissues, subject, number, seed, missing):
                series = evaluator.evaluate(simulate(), (subject, condition, number))
                _write(paths[condition], series)
        yield from (_read(paths[c], (subject, c, number)) for c in conditions)


def _write(path: Path, series: EvaluatedSeries) -> None:
    codes = json.dumps({"refused": series.refused, "flagged": series.flagged})
    arrays: dict[str, NDArray[np.generic]] = {"codes": np.array(codes), "slices": series.slices}
    if series.features is not None:
        arrays |= {name: getattr(series.features, name) for name in _FEATURES}
    staged = path.with_name(f".{path.name}")
    np.savez_compressed(staged, **arrays)  # type: ignore[arg-type] # arrays only
    staged.rename(path)


def _read(path: Path, name: tuple[str, str, int]) -> EvaluatedSeries:
    with np.load(path, allow_pickle=False) as cached:
        arrays = dict(cached)
    codes = json.loads(str(arrays["codes"]))
    features = None
    if "frame" in arrays:
        features = OodFeatures(**{each: arrays[each] for each in _FEATURES})
    return EvaluatedSeries(
        subject=name[0],
        condition=name[1],
        number=name[2],
        refused=tuple(codes["refused"]),
        flagged=tuple(codes["flagged"]),
        features=features,
        slices=arrays["slices"],
    )
