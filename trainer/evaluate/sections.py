"""Which tables a report has, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from trainer.evaluate import tables
from trainer.evaluate.evaluation import Document
from trainer.evaluate.paper import TABLE_1, TABLE_2, TABLE_4, PaperData, Printed
from trainer.evaluate.scores import OURS, Scores, read_scores
from trainer.evaluate.statements import paper_data
from trainer.evaluate.tables import Table

_POOLED: Final = (
    "Means and intervals are over subjects; `all slices` is the share over the slices of all "
    "subjects together."
)
_HEAD_MASK: Final = (
    "T1 contrast differs between these patients and carries no scale: in the head mask a "
    "constant can score what a network scores, or more. Read the tables above first."
)
#: the marks against which every table is read
_MARKS: Final = ("constant", "lut")
#: what the paper's Tables 2 and 4 compare, by the names of our methods
_OBJECTIVE: Final = ("raw", "unitized", "regression")
_FILLING: Final = ("bridge-average", "bridge-linear", "bridge-slerp")


def headline_tables(document: Document, beside: Sequence[Document]) -> list[Table]:
    """Make the tables that are read first; those the data do not fill are left out."""
    scores = read_scores(document)
    paper = paper_data(document)
    pairs = not document["dataset"]["volumetric"]
    likeness = (
        _likeness("Pairs of slices", scores, tables.PAIRS, (_POOLED,)),
        _likeness("Pairs of slices, inside the skull", scores, tables.PAIRS_MORE),
    )
    notes = ((_HEAD_MASK,) if pairs else ()) + (tables.meanings(scores, tables.IMAGE),)
    made = [
        *(likeness if pairs else ()),
        tables.table("Image quality", scores, tables.IMAGE, notes, _row(TABLE_1, paper)),
        tables.placed_table(scores),
        tables.factor_table([document, *beside]),
        _compared("Objective", scores, _OBJECTIVE, _row(TABLE_2, paper)),
        _compared("What fills the missing positions", scores, _FILLING, _row(TABLE_4, paper)),
        tables.wins_table(scores, tables.PAIRS if pairs else tables.IMAGE),
    ]
    return [table for table in made if table is not None]


def _likeness(
    title: str, scores: Scores, wanted: Sequence[str], notes: Sequence[str] = ()
) -> Table | None:
    return tables.table(title, scores, wanted, (*notes, tables.meanings(scores, wanted)))


def _row(printed: Mapping[PaperData, Printed], paper: PaperData | None) -> Printed:
    return printed.get(paper, {}) if paper is not None else {}


def _compared(title: str, scores: Scores, rivals: Sequence[str], printed: Printed) -> Table | None:
    """Our method against the rivals of one question, with the marks of every table."""
    held = [name for name in scores if name.removesuffix("-average") in rivals or name in rivals]
    if not held or OURS not in scores:
        return None
    chosen = {name: scores[name] for name in (OURS, *held, *_MARKS) if name in scores}
    return tables.table(title, chosen, tables.PAPER_SHAPE, (), printed)
