"""The report of a calibration: figures as JSON, and the same as Markdown for people."""

from collections.abc import Sequence
from typing import Any

from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.calibration import Calibration
from rebrain_node.model.card import Score
from trainer.calibrate.figures import SubjectResiduals, by_kind, likelihood, order
from trainer.calibrate.residuals import SPREAD_SEEDS, is_noisy

TEST = "held-out simulated heads, intervals whose width the other people set"
NO_SPREAD = (
    "none: the recipe's walk is one evaluation that starts from the CT itself, no noise enters it "
    "and every seed draws the same volume"
)


def report_of(
    bundle: ModelBundle,
    judged: Sequence[SubjectResiduals],
    calibration: Calibration,
    taught_by: list[str],
) -> dict[str, Any]:
    """Gather the figures, every person held against widths that the other people set."""
    return {
        "bundle": {"name": bundle.name, "version": bundle.version, "digest": bundle.digest},
        "calibration": calibration.model_dump(mode="json", exclude={"files"}),
        "taught_by": taught_by,
        "kinds": by_kind(judged),
        "order": order(judged),
        "likelihood": likelihood(judged),
        "mean_error": {
            each.residuals.person: float(each.sampled(each.residuals.error).mean())
            for each in judged
        },
        "spread_of_samples": f"{SPREAD_SEEDS} seeds" if is_noisy(bundle.recipe) else NO_SPREAD,
    }


def scores_of(report: dict[str, Any]) -> tuple[Score, ...]:
    """Return the rows of the model card."""
    return tuple(
        Score(
            test=TEST,
            method=f"{kind}, n = {found['people']}",
            figures={f"covered_{level}": each["mean"] for level, each in found["levels"].items()}
            | {"half_width": found["width"], "worst_series": found["worst_series"]},
        )
        for kind, found in report["kinds"].items()
        if found["levels"]
    )


def choice_of(report: dict[str, Any]) -> str:
    """Return the sentence of the model card."""
    calibration = report["calibration"]
    return (
        f"The uncertainty is {calibration['label']}: the half-width of the interval that misses "
        f"the truth in {calibration['alpha']:.0%} of the voxels of a head. The residual-scale head "
        f"learned from {len(report['taught_by'])} training heads; the widths are those of "
        f"{', '.join(calibration['subjects'])}, of whom no weight knows."
    )


def markdown(report: dict[str, Any]) -> str:
    """Render the report for people."""
    calibration, cost = report["calibration"], report["cost"]
    held = (
        f"{choice_of(report)} Calibration set {calibration['set_digest'][:16]}. Every figure of "
        "a person below stands on widths that the other people set."
    )
    spent = (
        f"Synthesis {1000 * cost['synthesis_s_per_slice']:.0f} ms a slice, the estimate "
        f"{1000 * cost['estimate_s_per_slice']:.1f} ms: {cost['share']:.1%}, medians of turns on "
        "one thread."
    )
    limits = [f"- {name}: {value:g}" for name, value in report["abstain"].items()]
    parts = [
        f"# Uncertainty of {report['bundle']['name']} {report['written']['version']}",
        held,
        _section("Coverage", _coverage(report["kinds"])),
        _section("Widths", _widths(calibration, report["kinds"])),
        _section("Order", _order(report)),
        _section("Cost", [spent]),
        _section("Limits", limits),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([f"## {title}", "", *lines])


def _coverage(kinds: dict[str, Any]) -> list[str]:
    rows = [
        (
            "| kind | n | 50 % | 80 % | 90 % | 95 % | surest quarter | second | third | least sure "
            "| worst series |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, found in kinds.items():
        if not found["levels"]:
            continue
        levels = [each["mean"] for each in found["levels"].values()]
        cells = [f"{v:.3f}" for v in (*levels, *found["quartiles"], found["worst_series"])]
        rows.append(f"| {kind} | {found['people']} | {' | '.join(cells)} |")
    return rows


def _widths(calibration: dict[str, Any], kinds: dict[str, Any]) -> list[str]:
    rows = ["| kind | lambda | n | conformal | mean half-width |", "|---|---|---|---|---|"]
    for kind, each in calibration["widths"].items():
        wide = kinds.get(kind, {}).get("width")
        rows.append(
            f"| {kind} | {each['scales']:.3f} | {each['people']} | "
            f"{'yes' if each['conformal'] else 'no'} | {'' if wide is None else f'{wide:.3f}'} |"
        )
    return rows


def _order(report: dict[str, Any]) -> list[str]:
    rho, area = report["order"]["spearman"], report["order"]["ause"]
    rows = ["| map | Spearman | AUSE | of constant |", "|---|---|---|---|"]
    for name, value in area.items():
        told = f"{rho[name]:.3f}" if name in rho else ""
        rows.append(f"| {name} | {told} | {value:.3f} | {value / area['constant']:.2f} |")
    nats = report["likelihood"]
    told = (
        f"Laplace likelihood, nats a voxel (less is better): {nats['scale']:.4f}, the best "
        f"constant of each person {nats['constant']:.4f}. "
        f"Spread of samples: {report['spread_of_samples']}."
    )
    return [*rows, "", told]
