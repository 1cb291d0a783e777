"""What the uncertainty costs beside the synthesis, on one thread and the same slices."""

import time
from collections.abc import Callable

import numpy as np

from rebrain_node.domain.volume import SyntheticVolume
from rebrain_node.engine.open import open_scale
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.ports import Engine
from rebrain_node.steps.estimate import estimate
from rebrain_node.steps.synthesise import synthesise

RUNS = 3


def cost_of(
    volume: SyntheticVolume, bundle: ModelBundle, engine: Engine, advance: Callable[[], None]
) -> dict[str, float]:
    """Time both steps by turns and return medians.

    Parameters
    ----------
    volume : SyntheticVolume
        Its slices are drawn anew.
    bundle : ModelBundle
        Calibrated.
    engine : Engine
        Of the bundle, on one thread.
    advance : callable
        Called after each of `RUNS` turns.

    Raises
    ------
    ValueError
        The bundle is not calibrated.
    """
    if bundle.calibration is None:
        raise ValueError(f"bundle {bundle.name} {bundle.version} is not calibrated")
    scale = open_scale("openvino", bundle, 1)
    synthesis, added = [], []
    for seed in range(RUNS):
        begun = time.process_time()
        drawn = synthesise(volume.prepared, volume.guides, engine, bundle.recipe, seed)
        between = time.process_time()
        estimate(drawn, bundle.recipe, scale, bundle.calibration)
        synthesis.append(between - begun)
        added.append(time.process_time() - between)
        advance()
    slices = len(volume.guides)
    return {
        "synthesis_s_per_slice": float(np.median(synthesis)) / slices,
        "estimate_s_per_slice": float(np.median(added)) / slices,
        "share": float(np.median(np.array(added) / np.array(synthesis))),
    }
