"""The two reports on retrieval: the ablation of guidance, and how well encoders find anatomy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Final, Literal, TypedDict

import torch
from safetensors.torch import load

from rebrain_node.errors import RebrainError
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.encoder import SliceEncoder
from trainer.evaluate.ablation import Ablation, LesionResult, VariantComparison
from trainer.evaluate.plots import FAINT, OUR_COLOUR, Plot, blank_figure, png
from trainer.evaluate.report import Report
from trainer.evaluate.results import MetricSummary
from trainer.evaluate.tables import Cell, Row, Table
from trainer.evaluate.variants import RADIUS_MM, VISIBLE
from trainer.release.card import OURS
from trainer.retrieval.report import Retrieval, assess, curve_of
from trainer.simulate.stacks import Stacks
from trainer.train.encoder import embedded

_NAMES: Final = {
    "full": "full: exemplar from tau on, else SLERP",
    "full-registered": "the same, the exemplar registered in its plane",
    "control-slerp": "control branch, guided by the SLERP everywhere",
    "slerp": "bridge with SLERP, no control branch",
    "as-source": "exemplar as the source image of the bridge",
    "linear": "linear between the synthetic slices at measured positions",
}


def ablation_report(found: Ablation) -> Report:
    """Return the tables, the figure and the sentences of an ablation."""
    bundle = found["bundle"]
    return Report(
        title="Ablation of guidance",
        subtitle=f"{bundle['name']} {bundle['version']} on {found['data']}, missing positions",
        limits=(
            _subjects_sentence(found),
            "SSIM is taken in the plane, within the brain or the head of each missing slice.",
            found["verdict"],
        ),
        tables=(
            *(_variants(protocol, found, "brain") for protocol in found["brain"]),
            *(_variants(protocol, found, "ways") for protocol in found["ways"]),
            _percents(found),
            _sizes(found),
            *([] if found["lesions"] is None else [_lesions(found["lesions"])]),
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


#: from so many subjects on an interval over subjects is taken at its word
_ENOUGH_SUBJECTS: Final = 10


def _subjects_sentence(found: Ablation) -> str:
    names = found["subjects"]
    sentence = f"{len(names)} held-out subjects: {', '.join(names)}."
    if found["most"] is not None:
        sentence += f" At most {found['most']} positions of a subject and protocol, evenly spread."
    if len(names) < _ENOUGH_SUBJECTS:
        sentence += " With so few an interval over subjects is itself uncertain."
    return sentence


_REGIONS: Final = {"brain": "inside the brain", "ways": "in the whole head"}


def _variants(protocol: str, found: Ablation, region: Literal["brain", "ways"]) -> Table:
    rows = tuple(
        Row(_NAMES[variant], _cells(each), "ours" if variant == "full" else "method")
        for variant, each in found[region][protocol].items()
    )
    return Table(
        f"What fills gaps of {found['gaps_mm'][protocol]:g} mm, {_REGIONS[region]} ({protocol})",
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


def _lesions(each: LesionResult) -> Table:
    leaked, erased = each["leaked_ci95"], each["erased_ci95"]
    return Table(
        "Planted lesions",
        ("share", "of", "95 % interval"),
        (
            Row(
                "the lesion of the exemplar is visible in the result",
                _plain(f"{each['leaked']:.1%}", str(each["planted"]),
                       f"{leaked[0]:.1%} to {leaked[1]:.1%}"),
            ),
            Row(
                "the lesion of the patient is erased by guidance",
                _plain(f"{each['erased']:.1%}", str(each["drawn"]),
                       f"{erased[0]:.1%} to {erased[1]:.1%}"),
            ),
        ),
        (
            (f"Discs of {RADIUS_MM:g} mm radius, blood and infarct alternately. Visible: a mean "
            f"difference of at least {VISIBLE:g} of the display range within the disc; the largest "
            f"difference that a lesion of an exemplar made was {each['leak_largest']:.3f}. Of the "
            "contrast of the patient's lesions that are visible without guidance, guidance keeps "
            f"{each['kept_median']:.0%} (median); erased means that less than half is kept."),
        ),
    )  # fmt: skip


def _plain(*texts: str) -> tuple[Cell, ...]:
    return tuple(Cell(text) for text in texts)


def _scatter(found: Ablation) -> Plot:
    """Plot similarity against error, position by position (Figure 11)."""
    with blank_figure(4.2) as figure:
        panel = figure.subplots()
        if found["points"]:
            similarity, error = zip(*found["points"], strict=True)
            panel.plot(similarity, error, ".", color=OUR_COLOUR, alpha=0.6)
        for each in found["percents"]:
            panel.axvline(each["tau"], color=FAINT, linewidth=0.8, linestyle=":")
        panel.set_xlabel("similarity of the best exemplar")
        panel.set_ylabel("mean absolute error of the slice it guides")
        picture = png(figure)
    rank = found["similarity_error"].get("spearman_error", float("nan"))
    return Plot(
        "similarity",
        "Similarity and error",
        f"Every missing position of the last protocol; rank correlation {rank:+.2f}. Dotted lines: "
        "tau at 20, 10, 5, 2 and 1 %, from the left.",
        picture,
    )


UNTRAINED = "untrained"


class RetrievalDocument(TypedDict):
    """The whole report as JSON: `encoders` and `sizes` by name."""

    format: int
    bundle: dict[str, str]
    stacks: str
    subjects: list[str]
    window_mm: float
    encoders: dict[str, dict[str, object]]
    sizes: dict[str, dict[float, dict[str, float]]]


class MissingEncoderError(RebrainError):
    """The bundle has no encoder to report on."""


def encoder_of(bundle: ModelBundle) -> SliceEncoder:
    """Return the encoder of a bundle.

    Raises
    ------
    MissingEncoderError
        It has none.
    """
    if not bundle.holds("encoder.safetensors"):
        raise MissingEncoderError(
            f"bundle {bundle.name} {bundle.version} has no encoder.safetensors; make one that "
            "retrieves with `rebrain-train add-retrieval`"
        )
    network = SliceEncoder()
    network.load_state_dict(load(bundle.read("encoder.safetensors")))
    return network.eval()


def compared(
    bundle: ModelBundle,
    networks: Mapping[str, SliceEncoder],
    base: Stacks,
    queries: Stacks,
    window_mm: float,
) -> RetrievalDocument:
    """Compare encoders: held-out heads are the queries, training heads the base.

    Parameters
    ----------
    networks : mapping of str to SliceEncoder
        By the name they have in the tables.
    window_mm : float
        Of the slice-position check where it is on.
    """
    figures, curves = {}, {}
    with torch.inference_mode():
        for name, network in networks.items():
            asked = queries.embedded(embedded(network, queries.slices))
            held = base.embedded(embedded(network, base.slices), after=len(queries.names))
            figures[name] = asdict(assess(asked, queries.slices, held, base.slices, window_mm))
            curves[name] = curve_of(asked, held, window_mm)
    return {
        "format": 1,
        "bundle": {"name": bundle.name, "version": bundle.version, "digest": bundle.digest},
        "stacks": base.digest,
        "subjects": list(queries.names),
        "window_mm": window_mm,
        "encoders": figures,
        "sizes": curves,
    }


def retrieval_report(found: RetrievalDocument) -> Report:
    """Return the tables of a comparison of encoders."""
    figures = {
        name: Retrieval(**values)  # type: ignore[arg-type] # as `asdict` made it
        for name, values in found["encoders"].items()
    }
    bundle = found["bundle"]
    return Report(
        title="Retrieval report",
        subtitle=f"encoder of {bundle['name']} {bundle['version']}",
        limits=(
            (
                f"Queries: the thick simulated series of {len(found['subjects'])} held-out heads "
                f"({', '.join(found['subjects'])}); base: all training heads."
            ),
            (
                "Positions are those of the heads' own coordinates; real CT is placed by "
                "registration, which adds its error."
            ),
            (
                "Re-identification (the paper's Table 3) is not what the node does: there the "
                "subject of the query is never in the base."
            ),
        ),
        tables=(_encoders(figures), _thresholds(figures), _sizes_of_the_base(found)),
        plots=(),
        facts=(("bundle digest", bundle["digest"]), ("stacks", found["stacks"])),
        skipped=(),
        notes=(f"SSIM and acceptance with the slice-position check at {found['window_mm']:g} mm.",),
        folded=(),
    )


def _encoders(figures: Mapping[str, Retrieval]) -> Table:
    rows = tuple(
        Row(
            name,
            (
                Cell(f"{f.median_mm:.1f}", f"90 %: {f.p90_mm:.1f}"),
                Cell(f"{f.ssim:.3f}"),
                Cell(f"{f.reidentified:.1%}"),
            ),
            "ours" if name == OURS else "method",
        )
        for name, f in figures.items()
    )
    columns = ("position error of top-1, check off, mm ↓", "SSIM of the exemplar ↑",
               "re-identified")  # fmt: skip
    return Table("Encoders", columns, rows)


def _thresholds(figures: Mapping[str, Retrieval]) -> Table:
    columns = tuple(f"p = {percent:g} %" for percent in next(iter(figures.values())).tau)
    rows = tuple(
        Row(
            name,
            tuple(Cell(f"{f.tau[p]:.4f}", f"accepts {f.accepted[p]:.1%}") for p in f.tau),
            "ours" if name == OURS else "method",
        )
        for name, f in figures.items()
    )
    return Table("Threshold tau and acceptance", columns, rows)


def _sizes_of_the_base(found: RetrievalDocument) -> Table:
    shares = list(next(iter(found["sizes"].values())))
    rows = tuple(
        Row(
            name,
            tuple(
                Cell(f"{curve[s]['median_mm']:.1f} mm", f"accepts {curve[s]['accepted']:.1%}")
                for s in shares
            ),
            "ours" if name == OURS else "method",
        )
        for name, curve in found["sizes"].items()
    )
    return Table("Size of the base", tuple(f"{float(s):.0%}" for s in shares), rows)
