"""The content of a report, before it is written as Markdown or HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from trainer.evaluate.montage import error_maps, montage
from trainer.evaluate.plots import Curve, Plot, learning, points, spectrum
from trainer.evaluate.results import DatasetFacts, Document, Evaluation, paper_data, read_scores
from trainer.evaluate.tables import Table, headline_tables, subject_tables

WARNING: Final = "Synthetic images: research software, not for diagnosis"
_SOURCES: Final = {
    "ct": "CT in HU",
    "ct-window": "CT through a brain window, 8 bit",
    "mr": "MR of another contrast, not CT",
}
_FEW: Final = 20
_INTERVALS: Final = (
    "Intervals are bootstrapped over subjects: they show how the mean varies with the choice of "
    "subjects, not the error of a single image."
)


def limits(document: Document) -> tuple[str, ...]:
    """State what these data cannot show."""
    dataset = document["dataset"]
    return tuple(
        line
        for line in (
            _subjects(dataset),
            _source(dataset),
            _comparable(document),
            _INTERVALS,
            "Scores of images do not show whether a lesion is invented, moved or lost.",
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
            "Nothing here is comparable with the tables of the ReBrain paper: they are of "
            "SynthRAD2023 and BraTS at half resolution, with other subjects, resolutions and "
            "preprocessing."
        )
    return (
        f"Rows from the paper are its {paper} figures at half resolution. The paper states no "
        "split and no intensity mapping, so they serve as a reference point only."
    )


@dataclass(frozen=True)
class Report:
    """Everything a report shows, in order."""

    title: str
    subtitle: str
    limits: tuple[str, ...]
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...]
    facts: tuple[tuple[str, str], ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    folded: tuple[Table, ...]


@dataclass(frozen=True)
class Supplement:
    """What a report shows beside its evaluation."""

    #: evaluations of the same subjects under other protocols, for the table by factor
    documents: Sequence[Document] = ()
    #: image error against iterations of training runs, by name
    curves: Mapping[str, Curve] = field(default_factory=dict)


def evaluation_report(evaluation: Evaluation, beside: Supplement) -> Report:
    """Return the tables and figures of an evaluation."""
    document = evaluation.document
    scores = read_scores(document)
    dataset, bundle = document["dataset"], document["bundle"]
    return Report(
        title="Evaluation report",
        subtitle=f"{bundle['name']} {bundle['version']} on {dataset['name']}, protocol "
        f"{document['protocol']}",
        limits=limits(document),
        tables=tuple(headline_tables(document, beside.documents)),
        plots=_plots(evaluation, beside.curves),
        facts=_facts(document),
        skipped=tuple(f"{name}: {reason}" for name, reason in document["skipped"].items()),
        notes=tuple(document["notes"]),
        folded=subject_tables(scores),
    )


def _plots(evaluation: Evaluation, curves: Mapping[str, Curve]) -> tuple[Plot, ...]:
    dataset, shown = evaluation.document["dataset"], evaluation.montage
    volumetric = dataset["volumetric"]
    by_subject = points(read_scores(evaluation.document))
    return (
        montage(shown, dataset["source_kind"], volumetric=volumetric),
        error_maps(shown, volumetric=volumetric),
        *((by_subject,) if by_subject else ()),
        spectrum(shown),
        *learning(curves),
    )


def _facts(document: Document) -> tuple[tuple[str, str], ...]:
    dataset, bundle = document["dataset"], document["bundle"]
    slices = dataset["slices"]
    return (
        ("data set", dataset["name"]),
        ("origin", dataset["origin"]),
        ("licence", dataset["licence"]),
        ("source", dataset["source_kind"]),
        ("split", dataset["split"]),
        ("subjects", ", ".join(f"{name} ({slices[name]} slices)" for name in dataset["subjects"])),
        ("protocol", document["protocol"]),
        ("definitions", document["mode"]),
        ("bundle", f"{bundle['name']} {bundle['version']}"),
        ("bundle digest", bundle["digest"]),
        ("engine", bundle["engine"]),
        ("seed", str(document["seed"])),
    )
