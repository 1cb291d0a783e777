"""OOD: brains that look like nothing the model was trained on (hazard H13)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits
from rebrain_node.steps.check.survey import Survey


def judge_domain(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find large bright regions (blood) and large dark ones (fluid, infarction)."""
    smooth = ndimage.uniform_filter(survey.hu, (1, 3, 3))
    low, high = limits.domain.bright_hu
    bright = survey.brain & (smooth >= low) & (smooth <= high)
    volume = float((bright.sum(axis=(1, 2)) * survey.pixel_area_mm2) @ survey.heights_mm) / 1000.0
    if volume > limits.domain.bright_ml:
        yield Finding(
            code="OOD",
            sentence=(
                f"{volume:.0f} ml of the brain are as bright as fresh blood ({low:g} to {high:g} "
                f"HU), at most {limits.domain.bright_ml:g} ml are known to the model"
            ),
            severity=limits.severity("OOD"),
            value=round(volume, 1),
            limit=limits.domain.bright_ml,
        )
    values = smooth[survey.brain]
    share = float(np.mean(values < limits.domain.fluid_hu)) if len(values) else 0.0
    if share > limits.domain.fluid_share:
        yield Finding(
            code="OOD",
            sentence=(
                f"{100 * share:.0f} % of the brain are darker than {limits.domain.fluid_hu:g} HU "
                f"(fluid, infarction), at most {100 * limits.domain.fluid_share:g} % are known to "
                "the model"
            ),
            severity=limits.severity("OOD"),
            value=round(share, 3),
            limit=limits.domain.fluid_share,
        )
