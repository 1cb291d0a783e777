"""Simulated series as the out-of-domain score sees them, in domain and out of it.

Every series goes the node's own way: the rules of `steps.check`, then the grid and the head frame.
What the score needs of it is kept in a folder, one file a series, so that another encoder costs
seconds and not hours.
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
from trainer.simulate.hounsfield import Tissues, draw_hu
from trainer.simulate.scanner import Pose, cut, series_of

IN_DOMAIN = "in domain"
#: what must be caught; `trainer.evaluate.input_checks` measures other conditions
CONDITIONS = (
    "METAL", "CRANIECTOMY", "NOISE", "scale shifted", "upside down", "back to front",
    "water cylinder", *BODIES,
)  # fmt: skip
#: of so many draws of a person the score is taken even where a rule refuses
LOOKED_DRAWS = 1


@dataclass(frozen=True, kw_only=True)
class EvaluatedSeries:
    """One series: what the rules said, and the look at it.

    Attributes
    ----------
    refused, flagged : tuple of str
        Codes of the rules.
    look : OodFeatures or None
        None where it could not be prepared, or a rule refused and no look was wanted.
    slices : ndarray of uint8
        (n, rows, columns) of the look, brain window 0 to 255 at half the grid.
    """

    person: str
    condition: str
    draw: int
    refused: tuple[str, ...]
    flagged: tuple[str, ...]
    look: OodFeatures | None = None
    slices: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 1, 1), np.uint8))

    def embedded(self, encoder: Encoder) -> "EvaluatedSeries":
        """Return it with the embeddings of its slices."""
        if self.look is None:
            return self
        images = self.slices.astype(np.float32) / np.float32(127.5) - np.float32(1)
        vectors = np.stack([encoder.embed(image[None, None]) for image in images])
        return replace(self, look=replace(self.look, embeddings=vectors))


@dataclass(frozen=True, kw_only=True)
class SeriesEvaluator:
    """What a series is judged and prepared with."""

    limits: Limits
    recipe: Recipe

    def seen(self, volume: SourceVolume, name: tuple[str, str, int]) -> EvaluatedSeries:
        """Judge a series (person, condition, draw) and look at it where that is wanted."""
        person, condition, draw = name
        found = check_volume(volume, self.limits)
        refused = [f.code for f in found if f.severity == "refuse"]
        flagged = tuple(dict.fromkeys(f.code for f in found if f.severity == "flag"))
        look, slices = None, np.zeros((0, 1, 1), np.uint8)
        if not refused or draw < LOOKED_DRAWS:
            try:
                look, slices = self._look(volume)
            except SeriesRejectedError as error:
                refused += [finding.code for finding in error.findings]
        return EvaluatedSeries(
            person=person,
            condition=condition,
            draw=draw,
            refused=tuple(dict.fromkeys(refused)),
            flagged=flagged,
            look=look,
            slices=slices,
        )

    def _look(self, volume: SourceVolume) -> tuple[OodFeatures, NDArray[np.uint8]]:
        prepared = preprocess(volume, self.recipe)
        frame = locate(prepared, load_head_template())
        chosen = looked_at(prepared, frame)
        brain = halved(self.recipe.brain_window.apply(prepared.hu[chosen]))
        look = OodFeatures(
            position_mm=frame.position_mm[chosen],
            frame=frame_vector(frame),
            picture=statistics(prepared)[chosen],
        )
        return look, np.rint((brain + 1) * 127.5).astype(np.uint8)


def in_distribution(series: Iterable[EvaluatedSeries]) -> list[InDistributionSeries]:
    """Select the series that the OOD model is fitted to: those that no rule refuses."""
    return [
        InDistributionSeries(each.person, each.look)
        for each in series
        if each.look is not None and not each.refused
    ]


def draw_series(
    head: Tissues, person: str, draw: int, seed: int, conditions: tuple[str, ...]
) -> Iterator[tuple[str, Callable[[], SourceVolume]]]:
    """Give each condition and how to draw its series: one body, one pose, one noise level.

    A series is drawn when it is called for; each has its own seed, so none depends on which
    others were drawn.
    """

    def sample_rng(condition: str) -> Generator:
        return np.random.default_rng([seed, draw, *person.encode(), 0, *condition.encode()])

    rng = sample_rng("")
    hu, pose = draw_hu(head, rng), Pose.drawn(rng)
    raw = cut(hu, pose)

    def scanned(condition: str) -> SourceVolume:
        own = sample_rng(condition)
        change = OF_THE_HEAD.get(condition)
        slices = scanner_noise(raw if change is None else cut(change(hu, head, own), pose), own)
        if condition in OF_THE_SCAN:
            slices = OF_THE_SCAN[condition](slices, pose.pixel_mm, own)
        volume = series_of(slices, pose)
        if condition in OUTSIDE:
            return OUTSIDE[condition].change(volume, own)
        return BODIES[condition](volume, own) if condition in BODIES else volume

    for condition in conditions:
        yield condition, lambda condition=condition: scanned(condition)  # type: ignore[misc] # bound now


def kept_series(
    way: SeriesEvaluator,
    head: Callable[[], Tissues],
    person: str,
    draws: Mapping[int, tuple[str, ...]],
    seed: int, folder: Path,
) -> Iterator[EvaluatedSeries]:  # fmt: skip
    """Give the series of a person; those that the folder lacks are drawn and kept.

    Parameters
    ----------
    head : callable
        Gives the tissues; called only if something is to be drawn.
    draws : mapping
        Conditions wanted of each draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tissues: Tissues | None = None
    for draw, conditions in draws.items():
        paths = {
            c: folder / f"{person}-{seed}-{draw}-{c.replace(' ', '_')}.npz" for c in conditions
        }
        missing = tuple(c for c in conditions if not paths[c].exists())
        if missing:
            tissues = tissues or head()
            for condition, drawn in draw_series(tissues, person, draw, seed, missing):
                _write(paths[condition], way.seen(drawn(), (person, condition, draw)))
        yield from (_read(paths[c], (person, c, draw)) for c in conditions)


def _write(path: Path, seen: EvaluatedSeries) -> None:
    codes = json.dumps({"refused": seen.refused, "flagged": seen.flagged})
    arrays: dict[str, NDArray[np.generic]] = {"codes": np.array(codes), "slices": seen.slices}
    if seen.look is not None:
        arrays["position_mm"] = seen.look.position_mm
        arrays["frame"], arrays["picture"] = seen.look.frame, seen.look.picture
    staged = path.with_name(f".{path.name}")
    np.savez_compressed(staged, **arrays)  # type: ignore[arg-type] # arrays only
    staged.rename(path)


def _read(path: Path, name: tuple[str, str, int]) -> EvaluatedSeries:
    with np.load(path, allow_pickle=False) as kept:
        arrays = dict(kept)
    codes = json.loads(str(arrays["codes"]))
    look = None
    if "frame" in arrays:
        look = OodFeatures(
            position_mm=arrays["position_mm"], frame=arrays["frame"], picture=arrays["picture"]
        )
    return EvaluatedSeries(
        person=name[0],
        condition=name[1],
        draw=name[2],
        refused=tuple(codes["refused"]),
        flagged=tuple(codes["flagged"]),
        look=look,
        slices=arrays["slices"],
    )
