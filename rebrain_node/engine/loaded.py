"""A bundle whose networks run on this machine, and what it can do beside synthesis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.calibration import Calibration
from rebrain_node.model.head_template import HeadTemplate, load_head_template
from rebrain_node.model.ood import OodModel
from rebrain_node.ports import Encoder, Engine, Exemplars, ResidualScale


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """The engine and the optional capabilities of a bundle; None where the bundle has not one."""

    engine: Engine
    template: HeadTemplate | None  #: to locate a series in the head, for retrieval and OOD score
    encoder: Encoder | None  #: to embed slices, for retrieval and OOD score
    exemplars: Exemplars | None  #: to retrieve
    ood_model: OodModel | None  #: to compute an OOD score
    scale: ResidualScale | None  #: to estimate a calibrated uncertainty, with `calibration`
    calibration: Calibration | None
    fallback: str | None = None  #: why OpenVINO computes in the place of the engine that is set

    @classmethod
    def of(
        cls,
        bundle: ModelBundle,
        engine: Engine,
        *,
        encoder: Encoder | None = None,
        exemplars: Exemplars | None = None,
        scale: ResidualScale | None = None,
    ) -> Self:
        """Decide what a bundle can do from what it holds and what was opened of it."""
        return cls(
            engine=engine,
            template=load_head_template() if bundle.locates else None,
            encoder=encoder,
            exemplars=exemplars,
            ood_model=bundle.ood_model,
            scale=scale,
            calibration=None if scale is None else bundle.calibration,
        )
