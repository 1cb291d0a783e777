"""The loop guard without a header: whether the pixels carry this software's watermark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits
from rebrain_node.steps.check.survey import Survey
from rebrain_node.watermark import FALSE_POSITIVES, detect

#: slices that are searched, at these shares of the slices with head
_PLACES: Final = (0.4, 0.6)


def check_watermark(survey: Survey, _: Limits) -> Iterator[Finding]:
    """Find the watermark in slices from the middle of the head.

    Only of a received series: what the trainer draws is not searched.
    """
    shown = survey.occupied if len(survey.occupied) else np.arange(len(survey.volume.hu))
    if not survey.instances or not len(shown):
        return
    for place in _PLACES:
        number = int(shown[round(place * (len(shown) - 1))])
        found = detect(survey.volume.hu[number])
        if found.is_marked:
            yield Finding(
                code="SRC-WATERMARK",
                sentence=(
                    "the pixels carry the watermark of a synthetic MR of this software, and no "
                    "header says so; only measured images may be used: send the measured CT"
                ),
                value=found.bound,
                limit=FALSE_POSITIVES,
            )
            return
