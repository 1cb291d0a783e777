"""OOD by rules: a turned face, large bleedings and fluid, unlike the training data (H13).

The score of the bundle's learned model is another step (`steps.ood`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from rebrain_node.domain.findings import Finding, unlike
from rebrain_node.domain.limits import Limits
from rebrain_node.steps.check.survey import Survey

#: depth below the top of the head at which nose, sinuses and throat lie
_FACE_MM = (70.0, 135.0)
_AIR_HU = -300.0
#: With less air, or with its middle nearer to the head's, the face is not seen: what is left is
#: mastoid cells, which point anywhere. At 15 mm two sound heads of 46 looked backwards.
_LEAST_AIR_ML = 3.0
_LEAST_OFFSET_MM = 25.0


def check_face_direction(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find a face that looks elsewhere than to the front that the header names.

    A patient can turn the head to the side; looking backwards, the orientation is wrong.
    """
    turn = turn_deg(survey)
    turned, wrong = limits.head.turn_deg
    if turn is None or turn <= turned:
        return
    yield Finding(
        code="GEOM-ORIENTATION" if turn > wrong else "OOD",
        sentence=(
            f"the face looks {unlike(turn, turned, 0)} degrees away from where the header says "
            f"that the front is, at most {turned:g} are known to the model; beyond {wrong:g} "
            "(head.turn_deg) the orientation or the patient's position was written wrongly at the "
            "scanner: correct it there"
        ),
        severity="refuse" if turn > wrong else limits.severity("OOD"),
        value=round(turn),
        limit=wrong if turn > wrong else turned,
    )


def turn_deg(survey: Survey) -> float | None:
    """Return the angle between anterior and the air of the face; ``None`` where none is seen."""
    deep = (survey.depths_mm >= _FACE_MM[0]) & (survey.depths_mm <= _FACE_MM[1])
    air = survey.head & (survey.hu < _AIR_HU) & deep[:, None, None]
    weights = survey.heights_mm * survey.pixel_area_mm2 / 1000.0
    if float(air.sum(axis=(1, 2)) @ weights) < _LEAST_AIR_ML:
        return None
    where, row, column = np.nonzero(air)
    places = np.stack([row, column], axis=1) - survey.centres[where]
    offset = np.average(places * survey.pixel_mm, axis=0, weights=weights[where])
    if float(np.linalg.norm(offset)) < _LEAST_OFFSET_MM:
        return None
    front = offset @ survey.directions
    return float(np.degrees(np.arctan2(abs(front[0]), -front[1])))


def check_densities(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find large bright regions (blood) and large dark ones (fluid, infarction)."""
    smooth = ndimage.uniform_filter(survey.hu, (1, 3, 3))
    low, high = limits.domain.bright_hu
    bright = survey.brain & (smooth >= low) & (smooth <= high)
    volume = float((bright.sum(axis=(1, 2)) * survey.pixel_area_mm2) @ survey.heights_mm) / 1000.0
    if volume > limits.domain.bright_ml:
        yield Finding(
            code="OOD",
            sentence=(
                f"{unlike(volume, limits.domain.bright_ml, 0)} ml of the brain are as bright as "
                f"fresh blood ({low:g} to {high:g} HU), at most {limits.domain.bright_ml:g} ml "
                "(domain.bright_ml) are known to the model: read the result with suspicion"
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
                f"(fluid, infarction), at most {100 * limits.domain.fluid_share:g} % "
                "(domain.fluid_share) are known to the model: read the result with suspicion"
            ),
            severity=limits.severity("OOD"),
            value=round(share, 3),
            limit=limits.domain.fluid_share,
        )
