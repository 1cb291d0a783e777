"""The report of a calibration as JSON and as Markdown."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rebrain_node.domain.uncertainty import CalibrationSource
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.calibration import Calibration
from rebrain_node.model.card import Score
from trainer.calibrate.intervals import (
    ALPHA,
    LARGEST_LOSS,
    SubjectResiduals,
    by_kind,
    likelihood,
    order,
)
from trainer.calibrate.residuals import SPREAD_SEEDS, is_noisy

#: test on the model card, by what the subjects were
TESTS: dict[CalibrationSource, str] = {
    "simulated CT": "held-out simulated heads, intervals",
    "paired scans": "held-out paired scans, intervals",
}
NO_SPREAD = (
    "none: the recipe evaluates the network once, from the CT itself, so that no sampled noise "
    "enters and every seed gives the same volume"
)


def report_of(
    bundle: ModelBundle,
    subjects: Sequence[SubjectResiduals],
    calibration: Calibration,
    training: list[str],
) -> dict[str, Any]:
    """Collect the figures; those of a subject use the widths set by the other subjects."""
    return {
        "bundle": {"name": bundle.name, "version": bundle.version, "digest": bundle.digest},
        "calibration": calibration.model_dump(mode="json", exclude={"files"}),
        "taught_by": training,
        "kinds": by_kind(subjects),
        "order": order(subjects),
        "likelihood": likelihood(subjects),
        "mean_error": {
            each.residuals.subject: float(each.sampled(each.residuals.error).mean())
            for each in subjects
        },
        "spread_of_samples": f"{SPREAD_SEEDS} seeds" if is_noisy(bundle.recipe) else NO_SPREAD,
    }


def scores_of(report: dict[str, Any]) -> tuple[Score, ...]:
    """Return the rows of the model card."""
    return tuple(
        Score(
            test=f"{TESTS[report['calibration']['source']]} set by the other subjects",
            method=f"{kind}, n = {figures['people']}",
            figures={f"covered_{level}": each["mean"] for level, each in figures["levels"].items()}
            | {"half_width": figures["width"], "worst_series": figures["worst_series"]},
        )
        for kind, figures in report["kinds"].items()
        if figures["levels"]
    )


def choice_of(report: dict[str, Any]) -> str:
    """Return the sentence of the model card."""
    calibration = report["calibration"]
    return (
        f"The uncertainty is {calibration['label']}: the half-width of the interval that misses "
        f"the truth in {calibration['alpha']:.0%} of the voxels of a head. The residual-scale "
        f"network was trained on {len(report['taught_by'])} training heads; the widths are those "
        f"of {', '.join(calibration['subjects'])}, on which no weight was trained."
    )


def write_report(report: dict[str, Any], out: Path) -> None:
    """Write the report beside the bundle `out`: OUT-uncertainty.json and OUT-uncertainty.md."""
    text = json.dumps(report, indent=1) + "\n"
    out.with_name(f"{out.name}-uncertainty.json").write_text(text)
    out.with_name(f"{out.name}-uncertainty.md").write_text(markdown(report))


def markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    calibration, cost = report["calibration"], report["cost"]
    introduction = (
        f"{choice_of(report)} Calibration set {calibration['set_digest'][:16]}. The figures of a "
        "subject below use the widths set by the other subjects."
    )
    times = (
        f"Synthesis {1000 * cost['synthesis_s_per_slice']:.0f} ms per slice, uncertainty "
        f"{1000 * cost['estimate_s_per_slice']:.1f} ms, {cost['share']:.1%} of it: medians of "
        "alternating runs on one thread."
    )
    limits = [f"- {name}: {value:g}" for name, value in report["abstain"].items()]
    parts = [
        f"# Uncertainty of {report['bundle']['name']} {report['written']['version']}",
        introduction,
        _section("Coverage", _coverage(report["kinds"])),
        _section("Widths", _widths(calibration, report["kinds"])),
        report["width_curve"]["sentence"],
        _section("Correlation with the error", _order(report)),
        _section("Cost", [times]),
        _section("Limits", limits),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([f"## {title}", "", *lines])


def _coverage(kinds: dict[str, Any]) -> list[str]:
    rows = [
        (
            "| kind | n | 50 % | 80 % | 90 % | 95 % | 90 %, quartile of lowest uncertainty "
            "| second | third | highest | worst series |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, figures in kinds.items():
        if not figures["levels"]:
            continue
        levels = [each["mean"] for each in figures["levels"].values()]
        cells = [f"{v:.3f}" for v in (*levels, *figures["quartiles"], figures["worst_series"])]
        rows.append(f"| {kind} | {figures['people']} | {' | '.join(cells)} |")
    return [*rows, "", _farthest(kinds)]


def _farthest(kinds: dict[str, Any]) -> str:
    scored = [each["levels"]["90%"] for each in kinds.values() if each["levels"]]
    shares = [1.0 - covered for each in scored for covered in each["per_person"]]
    if not shares:
        return "One subject alone has nobody to set its widths."
    beyond = sum(share > LARGEST_LOSS * ALPHA for share in shares)
    return (
        f"Of one subject and kind at most {max(shares):.1%} lies outside at 90 %; in {beyond} of "
        f"{len(shares)} it is more than {LARGEST_LOSS * ALPHA:.0%}, which counts as that."
    )


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
    rows = ["| map | Spearman's rho | AUSE | AUSE / constant |", "|---|---|---|---|"]
    for name, value in area.items():
        cell = f"{rho[name]:.3f}" if name in rho else ""
        rows.append(f"| {name} | {cell} | {value:.3f} | {value / area['constant']:.2f} |")
    nats = report["likelihood"]
    likelihoods = (
        "Mean of |e|/b + log b (negative Laplace log-likelihood, less log 2), nats per voxel, "
        f"lower is better: {nats['scale']:.4f}; the best constant of each subject: "
        f"{nats['constant']:.4f}. "
        f"Spread of samples: {report['spread_of_samples']}."
    )
    return [*rows, "", likelihoods]
