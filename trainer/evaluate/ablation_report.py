"""The ablation of guidance as a report: Tables 4 and 5, Figures 6 and 11 at our scale."""

from __future__ import annotations

from typing import Final

from trainer.evaluate.ablation import Ablation, VariantComparison
from trainer.evaluate.lesions import RADIUS_MM, VISIBLE
from trainer.evaluate.plots import FAINT, OUR_COLOUR, Plot, blank_figure, png
from trainer.evaluate.report import Report
from trainer.evaluate.results import MetricSummary
from trainer.evaluate.tables import Cell, Row, Table

_NAMES: Final = {
    "full": "full: exemplar from tau on, else SLERP",
    "control-slerp": "control, shown the SLERP everywhere",
    "slerp": "bridge with SLERP, no control",
    "as-source": "exemplar as the end of the bridge",
    "linear": "linear between our own measured slices",
}


def report_of(found: Ablation) -> Report:
    """Say the ablation in tables, a figure and sentences."""
    bundle = found["bundle"]
    return Report(
        title="Ablation of guidance",
        subtitle=f"{bundle['name']} {bundle['version']} on {found['data']}, missing positions",
        limits=(
            (
                f"{len(found['subjects'])} held-out subjects: {', '.join(found['subjects'])}. "
                "With so few an interval over subjects is itself uncertain."
            ),
            "SSIM is taken in the plane, within the head of each missing slice.",
            found["verdict"],
        ),
        tables=(
            *(_ways(protocol, found) for protocol in found["ways"]),
            _percents(found),
            _sizes(found),
            _lesions(found),
        ),
        plots=(_scatter(found),),
        facts=(
            ("bundle digest", bundle["digest"]),
            ("engine", bundle["engine"]),
            ("knowledge base", found["knowledge_base"]),
            ("seed", str(found["seed"])),
        ),
        skipped=(),
        notes=(
            (
                "gain: SSIM of the full recipe minus that of the row, per subject; its interval is "
                "bootstrapped over subjects."
            ),
            (
                "The paper's Table 4 prints, on BraTS, SSIM .8460 without and .8887 with control; "
                "its network was trained with the exemplar's own MR as the target."
            ),
        ),
        folded=(),
    )


def _ways(protocol: str, found: Ablation) -> Table:
    rows = tuple(
        Row(_NAMES[way], _cells(each), "ours" if way == "full" else "method")
        for way, each in found["ways"][protocol].items()
    )
    return Table(
        f"What fills the missing positions, {protocol}",
        ("SSIM ↑", "MAE ↓", "gain of full"),
        rows,
        (
            (
                f"{found['positions'][protocol]} positions, of which an exemplar guides "
                f"{found['retrieved'][protocol]:.1%}."
            ),
        ),
    )


def _cells(each: VariantComparison) -> tuple[Cell, ...]:
    return _cell(each["ssim"], ".4f"), _cell(each["mae"], ".4f"), _cell(each["gain"], "+.4f")


def _cell(value: MetricSummary, form: str) -> Cell:
    low, high = value["ci95"]
    return Cell(f"{value['mean']:{form}}", f"{low:{form}} to {high:{form}}")


def _percents(found: Ablation) -> Table:
    rows = tuple(
        Row(f"p = {each['percent']} %", _plain(f"{each['tau']:.4f}", f"{each['accepted']:.1%}",
                                               f"{each['ssim']:.4f}"))
        for each in found["percents"]
    )  # fmt: skip
    return Table("Threshold", ("tau", "guided by an exemplar", "SSIM ↑"), rows)


def _sizes(found: Ablation) -> Table:
    rows = tuple(
        Row(
            f"{each['share']:.0%}",
            _plain(
                str(each["people"]),
                f"{each['accepted']:.1%}",
                f"{each['position_error_mm']:.1f}",
                f"{each['ssim']:.4f}",
            ),
        )
        for each in found["sizes"]
    )
    return Table(
        "Size of the knowledge base",
        ("subjects", "guided by an exemplar", "median position difference, mm", "SSIM ↑"),
        rows,
    )


def _lesions(found: Ablation) -> Table:
    each = found["lesions"]
    leaked, erased = each["leaked_ci95"], each["erased_ci95"]
    return Table(
        "Planted lesions",
        ("share", "of", "95 % interval"),
        (
            Row(
                "the exemplar's lesion is seen in the drawing",
                _plain(f"{each['leaked']:.1%}", str(each["planted"]),
                       f"{leaked[0]:.1%} to {leaked[1]:.1%}"),
            ),
            Row(
                "the query's lesion is erased by guidance",
                _plain(f"{each['erased']:.1%}", str(each["drawn"]),
                       f"{erased[0]:.1%} to {erased[1]:.1%}"),
            ),
        ),
        (
            (f"Discs of {RADIUS_MM:g} mm, blood and infarct by turns. Seen: a mean difference of "
            f"{VISIBLE:g} of the display range within the disc; the largest of a donor's was "
            f"{each['leak_largest']:.3f}. Of the query's lesions that the bare bridge draws, "
            f"guidance keeps {each['kept_median']:.0%} of the contrast (median); erased is less "
            "than half."),
        ),
    )  # fmt: skip


def _plain(*texts: str) -> tuple[Cell, ...]:
    return tuple(Cell(text) for text in texts)


def _scatter(found: Ablation) -> Plot:
    """Draw similarity against error, position by position (Figure 11)."""
    with blank_figure(4.2) as drawn:
        panel = drawn.subplots()
        if found["points"]:
            similarity, error = zip(*found["points"], strict=True)
            panel.plot(similarity, error, ".", color=OUR_COLOUR, alpha=0.6)
        for each in found["percents"]:
            panel.axvline(each["tau"], color=FAINT, linewidth=0.8, linestyle=":")
        panel.set_xlabel("similarity of the best exemplar")
        panel.set_ylabel("mean absolute error of the slice it guides")
        picture = png(drawn)
    rank = found["similarity_error"].get("spearman_error", float("nan"))
    return Plot(
        "similarity",
        "Similarity and error",
        f"Every missing position of the last protocol; rank correlation {rank:+.2f}. Dotted: tau "
        "at 20, 10, 5, 2 and 1 %, from the left.",
        picture,
    )
