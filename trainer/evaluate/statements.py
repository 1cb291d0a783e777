"""The sentences that every report carries: what the figures may not be taken for."""

from __future__ import annotations

from typing import Final

from trainer.evaluate.evaluation import DatasetFacts, Document
from trainer.evaluate.paper import PaperData, same_data

WARNING: Final = "Synthetic images: research software, not for diagnosis"
_SOURCES: Final = {
    "ct": "CT in HU",
    "ct-window": "CT through a brain window, 8 bit",
    "mr": "MR of another contrast, not CT",
}
_FEW: Final = 20
_INTERVALS: Final = (
    "Intervals are bootstrapped over subjects: they tell how the mean moves with the choice of "
    "subjects, not how one image may err."
)


def paper_data(document: Document) -> PaperData | None:
    """Tell which of the paper's data sets this evaluation used, if any."""
    dataset = document["dataset"]
    return same_data(f"{dataset['name']} {dataset['origin']}", document["protocol"])


def limits(document: Document) -> tuple[str, ...]:
    """Say what these data cannot show."""
    dataset = document["dataset"]
    return tuple(
        line
        for line in (
            _subjects(dataset),
            _source(dataset),
            _comparable(document),
            _INTERVALS,
            "Scores of images do not say whether a lesion is drawn, moved or lost.",
        )
        if line
    )


def _subjects(dataset: DatasetFacts) -> str:
    count = len(dataset["subjects"])
    slices = sum(dataset["slices"].values())
    noun = "subject" if count == 1 else "subjects"
    few = "; so few that an interval is itself uncertain" if count < _FEW else ""
    return f"{count} {noun} with {slices} scored slices{few}."


def _source(dataset: DatasetFacts) -> str:
    kind = dataset["source_kind"]
    if not dataset["volumetric"]:
        return (
            f"The source is {_SOURCES.get(kind, kind)}, in single slices without pixel size or "
            "position: nothing here is in HU or millimetres, and every score is of a plane."
        )
    if kind == "mr":
        return (
            "The source is MR of another contrast (as in the paper's BraTS experiment): these "
            "scores say nothing about CT."
        )
    if "simulated" in f"{dataset['name']} {dataset['origin']}".lower():
        return "The source is simulated CT, made from the reference: real CT will score lower."
    return ""


def _comparable(document: Document) -> str:
    paper = paper_data(document)
    if paper is None:
        return (
            "Nothing here is comparable with the tables of the ReBrain paper: those are of "
            "SynthRAD2023 and BraTS at half resolution, these are other subjects, other "
            "resolutions and other preprocessing."
        )
    return (
        f"Rows from the paper are its {paper} figures at half resolution. The paper states no "
        "split and no intensity mapping, so they stand beside ours as a mark, not as a contest."
    )
