"""The tables of a report, before they become Markdown or HTML: labels, cells, and their order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from trainer.evaluate.results import (
    TABLE_1,
    TABLE_2,
    TABLE_4,
    Document,
    PaperData,
    Printed,
    Scores,
    Statistic,
    metrics_of,
    paper_data,
    read_scores,
    subjects_of,
)
from trainer.evaluate.spectrum import BANDS
from trainer.release.card import OURS

Better = Literal["higher", "lower", "closer"]
_ARROWS: Final[dict[Better, str]] = {"higher": " ↑", "lower": " ↓", "closer": ""}
_POSITION_LABELS: Final = {"measured": "at measured positions", "filled": "at filled positions"}


@dataclass(frozen=True)
class Metric:
    """One figure of model.md section 6."""

    label: str
    better: Better  #: "closer": only its gap to the reference says anything
    digits: int
    meaning: str

    @property
    def heading(self) -> str:
        """Label with an arrow towards the better end."""
        return self.label + _ARROWS[self.better]


# fmt: off
_METRICS: Final = {
    "slice_id_exact": Metric(
        "slice-ID exact", "higher", 3,
        "share of supratentorial slices whose best correlated real slice is the right one"),
    "slice_id_within_one": Metric(
        "slice-ID ± 1", "higher", 3,
        "the same, the right one or its neighbour"),
    "slice_id_slices": Metric(
        "supratentorial slices", "closer", 0,
        "how many slices of a subject were to be identified"),
    "brain_correlation": Metric(
        "brain corr.", "higher", 3,
        "Pearson's correlation inside the skull"),
    "lncc": Metric("LNCC", "higher", 3, "local correlation, Gaussian of sigma 4 pixels"),
    "gradient_correlation": Metric(
        "gradient corr.", "higher", 3,
        "Pearson's correlation of the gradients, inside the skull"),
    "tissue_correlation": Metric(
        "tissue corr.", "higher", 3,
        "Pearson's correlation inside the skull, CSF of the real MR left out"),
    **{
        f"{kind}amplitude_{band}": Metric(
            f"{label} {low:.2f}-{high:.2f}", "closer", 3,
            f"{meaning} at {low:.2f} to {high:.2f} cycles per pixel; the real MR has 1")
        for band, (low, high) in BANDS.items()
        for kind, label, meaning in (
            ("", "amplitude", "amplitude over that of the real MR in the middle of the brain"),
            ("correlated_", "correlated ampl.", "amplitude that correlates with the real MR"))
    },
    "stripe_ratio": Metric(
        "stripes", "lower", 2,
        "roughness along z at measured over that at filled positions; a real MR has 1"),
    "nmi": Metric("NMI", "higher", 3, "normalised mutual information, inside the skull"),
    "ssim_brain": Metric(
        "SSIM, brain", "higher", 3,
        "SSIM inside the skull after monotone matching of brightness to the reference"),
    "psnr_brain": Metric("PSNR, brain (dB)", "higher", 2, "PSNR of the same"),
    "nrmse": Metric(
        "NRMSE", "lower", 4,
        "root-mean-square error over the range of the reference in the head"),
    "psnr": Metric("PSNR (dB)", "higher", 2, "-20 log10 of the root-mean-square error"),
    "ssim": Metric("SSIM", "higher", 4, "Gaussian sigma 1.5, window 11, range 1, in the head"),
    "mae": Metric("MAE", "lower", 4, "mean absolute error, head, range of the reference = 1"),
    "i_ssim": Metric(
        "I-SSIM", "closer", 4,
        "mean SSIM of adjacent slices; largest for a constant volume, so only its gap counts"),
    "i_ssim_reference": Metric("I-SSIM, reference", "closer", 4, "I-SSIM of the real MR"),
    "i_ssim_gap": Metric(
        "I-SSIM gap", "lower", 4,
        "distance of I-SSIM from that of the real MR, per subject"),
    "spectrum_error": Metric(
        "spectrum error", "lower", 3,
        "error of the radial power spectrum: texture"),
}
# fmt: on


def metric(name: str) -> Metric:
    """Look a metric up by its name in the JSON; one that is unknown is shown under its name."""
    if name in _METRICS:
        return _METRICS[name]
    stem, _, kind = name.rpartition("_")
    if kind in _POSITION_LABELS and stem in _METRICS:
        whole = _METRICS[stem]
        return Metric(
            f"{whole.label}, {kind}",
            whole.better,
            whole.digits,
            f"{whole.meaning}, {_POSITION_LABELS[kind]}",
        )
    return Metric(name.replace("_", " "), "closer", 4, "")


def number(value: float, digits: int) -> str:
    """Write a figure; a dash where there is none."""
    # + 0.0 turns the negative zero that rounding leaves into zero
    return "-" if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"


#: the columns of each table; a table shows those that the evaluation has
PAIRS: Final = ("slice_id_exact", "slice_id_within_one", "brain_correlation", "lncc")
PAIRS_MORE: Final = (
    "tissue_correlation", "gradient_correlation", "nmi", "ssim_brain", "psnr_brain",
)  # fmt: skip
SHARPNESS: Final = (
    "spectrum_error",
    *(f"{kind}amplitude_{band}" for kind in ("", "correlated_") for band in BANDS),
    "stripe_ratio",
)
PAPER_SHAPE: Final = ("nrmse", "psnr", "ssim", "i_ssim", "i_ssim_gap")
IMAGE: Final = (*PAPER_SHAPE, "mae", "spectrum_error")
PLACED: Final = ("nrmse", "psnr", "ssim", "mae")
_PLACES: Final = (
    "Measured: the position of a slice that was given. Filled: a position between such slices, "
    "where nothing was given."
)
FACTOR: Final = ("psnr", "ssim", "nrmse", "i_ssim_gap")


@dataclass(frozen=True)
class Cell:
    """One figure of a table: the mean, and below it what belongs to it."""

    text: str
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One method, one line of the paper, or the reference itself."""

    name: str
    cells: tuple[Cell, ...]
    kind: str = "method"  #: "method", "ours", "reference" or "paper"


@dataclass(frozen=True)
class Table:
    """A table and what must be said with it; `folded` stays closed until it is asked for."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    first: str = "method"
    groups: tuple[tuple[str, int], ...] = field(default=())
    folded: bool = False


def table(
    title: str,
    scores: Scores,
    wanted: Sequence[str],
    notes: Sequence[str] = (),
    printed: Printed | None = None,
) -> Table | None:
    """Make a table of means with intervals, the best of each column marked.

    `wanted` are metrics; those that no method has are left out, and None is returned where none
    is left. `printed` are rows of the paper made from the same data.
    """
    held = [name for name in wanted if name in metrics_of(scores)]
    if not held:
        return None
    best = {name: _best(scores, name) for name in held}
    rows = [
        Row(
            method,
            tuple(_cell(entries.get(name), metric(name), method in best[name]) for name in held),
            "ours" if method == OURS else "method",
        )
        for method, entries in scores.items()
    ]
    rows += _reference(scores, held) + _printed(printed or {}, held)
    return Table(title, tuple(metric(n).heading for n in held), tuple(rows), tuple(notes))


def meanings(scores: Scores, wanted: Sequence[str]) -> str:
    """Return what each column is, in one sentence."""
    held = [metric(name) for name in wanted if name in metrics_of(scores)]
    return "; ".join(f"{shown.label}: {shown.meaning}" for shown in held if shown.meaning) + "."


def placed_table(scores: Scores) -> Table | None:
    """Measured and filled positions side by side; None where there is only one kind."""
    there = metrics_of(scores)
    held = [n for n in PLACED if f"{n}_measured" in there and f"{n}_filled" in there]
    if not held:
        return None
    wanted = [f"{name}_{kind}" for name in held for kind in ("measured", "filled")]
    whole = table("Measured and filled positions", scores, wanted)
    if whole is None:
        return None
    return Table(
        whole.title,
        ("measured", "filled") * len(held),
        whole.rows,
        (_PLACES,),
        groups=tuple((metric(name).heading, 2) for name in held),
    )


def factor_table(documents: Sequence[Document]) -> Table | None:
    """Shape of the paper's Table 6: the same data at several protocols, side by side."""
    if len(documents) < 2:
        return None
    by_protocol = {str(document["protocol"]): read_scores(document) for document in documents}
    methods = dict.fromkeys(name for scores in by_protocol.values() for name in scores)
    parts = {
        protocol: part
        for protocol, scores in by_protocol.items()
        if (part := table("", {name: scores.get(name, {}) for name in methods}, FACTOR))
    }
    rows = tuple(
        Row(same[0].name, tuple(cell for row in same for cell in row.cells), same[0].kind)
        for same in zip(*(part.rows for part in parts.values()), strict=True)
    )
    columns = tuple(heading for part in parts.values() for heading in part.columns)
    groups = tuple((_protocol(name), len(part.columns)) for name, part in parts.items())
    note = "The same subjects and the same bundle; only the distance between given slices differs."
    return Table("Sparser and sparser sources", columns, rows, (note,), groups=groups)


def wins_table(scores: Scores, wanted: Sequence[str]) -> Table | None:
    """On how many subjects our method is better than each other one."""
    if OURS not in scores or len(subjects_of(scores)) < 2:
        return None
    held = [n for n in wanted if n in scores[OURS] and metric(n).better != "closer"]
    others = [name for name in scores if name != OURS]
    if not held or not others:
        return None
    rows = tuple(
        Row(
            f"better than {other}",
            tuple(_wins(scores[OURS][n], scores[other].get(n), metric(n)) for n in held),
        )
        for other in others
    )
    note = "Subjects on which rebrain is strictly better, of those on which both were scored."
    return Table(
        "Subject by subject", tuple(metric(n).label for n in held), rows, (note,), "rebrain is"
    )


def subject_tables(scores: Scores) -> tuple[Table, ...]:
    """Every value of every subject, one folded table per metric."""
    subjects = subjects_of(scores)
    made = []
    for name in metrics_of(scores):
        rows = tuple(
            Row(
                method,
                (
                    *_values(entries[name], subjects, metric(name).digits),
                    Cell(number(entries[name].sd, metric(name).digits)),
                ),
                "ours" if method == OURS else "method",
            )
            for method, entries in scores.items()
            if name in entries
        )
        made.append(Table(metric(name).heading, (*subjects, "SD"), rows, folded=True))
    return tuple(made)


def _values(statistic: Statistic, subjects: Sequence[str], digits: int) -> tuple[Cell, ...]:
    return tuple(
        Cell(number(statistic.per_subject.get(subject, math.nan), digits)) for subject in subjects
    )


def _cell(statistic: Statistic | None, shown: Metric, best: bool) -> Cell:
    if statistic is None:
        return Cell("-")
    note = ""
    if not math.isnan(statistic.low):
        note = f"{number(statistic.low, shown.digits)} to {number(statistic.high, shown.digits)}"
    if not math.isnan(statistic.pooled):
        note += f"; all slices {number(statistic.pooled, shown.digits)}"
    return Cell(number(statistic.mean, shown.digits), note, best)


def _best(scores: Scores, name: str) -> frozenset[str]:
    """Name the best methods of a column; what prints alike is equally good."""
    shown = metric(name)
    means = {
        method: round(entries[name].mean, shown.digits)
        for method, entries in scores.items()
        if name in entries and not math.isnan(entries[name].mean)
    }
    if shown.better == "closer" or not means:
        return frozenset()
    top = max(means.values()) if shown.better == "higher" else min(means.values())
    return frozenset(method for method, mean in means.items() if mean == top)


def _reference(scores: Scores, held: Sequence[str]) -> list[Row]:
    """The real MR's own I-SSIM, which its row alone makes readable."""
    own = [e["i_ssim_reference"] for e in scores.values() if "i_ssim_reference" in e]
    if "i_ssim" not in held or not own:
        return []
    cells = tuple(
        Cell(number(own[0].mean, metric(name).digits)) if name == "i_ssim" else Cell("")
        for name in held
    )
    return [Row("the real MR itself", cells, "reference")]


def _printed(printed: Mapping[str, Mapping[str, float]], held: Sequence[str]) -> list[Row]:
    return [
        Row(
            f"{name}, as printed in the paper",
            tuple(Cell(number(values.get(n, math.nan), metric(n).digits)) for n in held),
            "paper",
        )
        for name, values in printed.items()
    ]


def _wins(ours: Statistic, theirs: Statistic | None, shown: Metric) -> Cell:
    if theirs is None:
        return Cell("-")
    both = [subject for subject in ours.per_subject if subject in theirs.per_subject]
    sign = 1 if shown.better == "higher" else -1
    won = sum(sign * (ours.per_subject[s] - theirs.per_subject[s]) > 0 for s in both)
    return Cell(f"{won} of {len(both)}")


def _protocol(name: str) -> str:
    kind, _, factor = name.partition(":")
    return f"{kind} x{factor}" if factor else "every slice given"


_POOLED: Final = (
    "Means and intervals are over subjects; `all slices` is the share over the slices of all "
    "subjects together."
)
_HEAD_MASK: Final = (
    "T1 contrast differs between these patients and carries no scale: in the head mask a "
    "constant can score what a network scores, or more. Read the tables above first."
)
_BLUR: Final = (
    "A blurred image can have a better correlation and a smaller error than a sharp one; its "
    "amplitude falls. Read the correlations together with this table."
)
#: baselines that every table shows
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
        _likeness("Pairs of slices", scores, PAIRS, (_POOLED,)),
        _likeness("Pairs of slices, inside the skull", scores, PAIRS_MORE),
    )
    notes = ((_HEAD_MASK,) if pairs else ()) + (meanings(scores, IMAGE),)
    made = [
        *(likeness if pairs else ()),
        table("Image quality", scores, IMAGE, notes, _paper_rows(TABLE_1, paper)),
        _likeness("Sharpness and stripes", scores, SHARPNESS, (_BLUR,)),
        placed_table(scores),
        factor_table([document, *beside]),
        _compared("Objective", scores, _OBJECTIVE, _paper_rows(TABLE_2, paper)),
        _compared(
            "What fills the missing positions", scores, _FILLING, _paper_rows(TABLE_4, paper)
        ),
        wins_table(scores, PAIRS if pairs else IMAGE),
    ]
    return [table for table in made if table is not None]


def _likeness(
    title: str, scores: Scores, wanted: Sequence[str], notes: Sequence[str] = ()
) -> Table | None:
    return table(title, scores, wanted, (*notes, meanings(scores, wanted)))


def _paper_rows(printed: Mapping[PaperData, Printed], paper: PaperData | None) -> Printed:
    return printed.get(paper, {}) if paper is not None else {}


def _compared(title: str, scores: Scores, others: Sequence[str], printed: Printed) -> Table | None:
    """Our method beside the others of one question, with `constant` and `lut`."""
    held = [name for name in scores if name.removesuffix("-average") in others or name in others]
    if not held or OURS not in scores:
        return None
    chosen = {name: scores[name] for name in (OURS, *held, *_MARKS) if name in scores}
    return table(title, chosen, PAPER_SHAPE, (), printed)
