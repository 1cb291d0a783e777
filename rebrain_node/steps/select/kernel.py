"""What a reconstruction kernel is made for, by vendor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from rebrain_node.domain.limits import KernelRule

KernelKind = Literal["soft", "bone", "unknown"]

#: longer names are not looked at: (0018,1210) is a Short String, at most 16 characters
_LONGEST = 16


def kernel_kind(
    manufacturer: str | None, kernel: str | None, rules: Sequence[KernelRule]
) -> KernelKind:
    """Classify Convolution Kernel (0018,1210) by the rules of its vendor.

    Parameters
    ----------
    manufacturer : str or None
        (0008,0070) as received.
    kernel : str or None
        The values joined by a backslash; the first counts. Siemens adds the strength of the
        iterative reconstruction as a second one.
    rules : sequence of KernelRule
        In order; the first whose vendor fits and that knows the kernel decides.
    """
    name = (kernel or "").split("\\")[0].strip().upper()[:_LONGEST]
    vendor = (manufacturer or "").strip().upper()
    if not name:
        return "unknown"
    for rule in rules:
        if not vendor.startswith(rule.vendors):
            continue
        if any(re.fullmatch(pattern, name) for pattern in rule.bone):
            return "bone"
        if any(re.fullmatch(pattern, name) for pattern in rule.soft):
            return "soft"
    return "unknown"
