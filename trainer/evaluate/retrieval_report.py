"""How well encoders find the same anatomy in other heads, as a report (Table 3, tau, Table 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TypedDict

import torch
from safetensors.torch import load

from rebrain_node.errors import RebrainError
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.encoder import SliceEncoder
from trainer.evaluate.report import Report
from trainer.evaluate.results import OURS
from trainer.evaluate.tables import Cell, Row, Table
from trainer.retrieval.report import Retrieval, assess, curve_of
from trainer.simulate.stacks import Stacks
from trainer.train.encoder import embedded

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


def report_of(found: RetrievalDocument) -> Report:
    """Say the comparison in tables."""
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
        tables=(_encoders(figures), _thresholds(figures), _sizes(found)),
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


def _sizes(found: RetrievalDocument) -> Table:
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
