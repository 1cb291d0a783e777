"""What a report says, before it is Markdown or HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainer.evaluate.curves import Curve
from trainer.evaluate.drawing import Plate
from trainer.evaluate.evaluation import Document, Evaluation
from trainer.evaluate.montage import error_maps, montage
from trainer.evaluate.plots import learning, points, spectrum
from trainer.evaluate.scores import read_scores
from trainer.evaluate.sections import headline_tables
from trainer.evaluate.statements import limits
from trainer.evaluate.tables import Table, subject_tables


@dataclass(frozen=True)
class Contents:
    """Everything a report shows, in order."""

    title: str
    subtitle: str
    limits: tuple[str, ...]
    tables: tuple[Table, ...]
    plates: tuple[Plate, ...]
    facts: tuple[tuple[str, str], ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    folded: tuple[Table, ...]


@dataclass(frozen=True)
class Beside:
    """What a report shows beside its evaluation.

    Attributes
    ----------
    documents : sequence of Document
        Evaluations of the same subjects under other protocols, for the table by factor.
    curves : mapping of str to Curve
        Image error against iterations of training runs, by name.
    """

    documents: Sequence[Document] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)


def gather(evaluation: Evaluation, beside: Beside) -> Contents:
    """Make tables and figures of an evaluation.

    Parameters
    ----------
    evaluation : Evaluation
        The one that is reported.
    beside : Beside
        What is shown with it.
    """
    document = evaluation.document
    scores = read_scores(document)
    dataset, bundle = document["dataset"], document["bundle"]
    return Contents(
        title="Evaluation report",
        subtitle=f"{bundle['name']} {bundle['version']} on {dataset['name']}, protocol "
        f"{document['protocol']}",
        limits=limits(document),
        tables=tuple(headline_tables(document, beside.documents)),
        plates=_plates(evaluation, beside.curves),
        facts=_facts(document),
        skipped=tuple(f"{name}: {reason}" for name, reason in document["skipped"].items()),
        notes=tuple(document["notes"]),
        folded=subject_tables(scores),
    )


def _plates(evaluation: Evaluation, curves: Mapping[str, Curve]) -> tuple[Plate, ...]:
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
