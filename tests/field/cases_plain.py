"""Plain studies of a phantom: what everything else is compared with."""

from __future__ import annotations

from pathlib import Path

from tests.field.case import Case
from tests.support.phantoms import head_ct, write


def _write(**changes: object):
    def make(folder: Path) -> None:
        write(head_ct(**changes), folder)

    return make


CASES = (
    Case(
        name="plain-thick-head",
        group="plain",
        situation="A whole head, 24 axial slices of 5 mm, soft kernel.",
        source="the demonstration's study",
        expected="accepted",
        make=_write(manufacturer="SIEMENS"),
        pixels=True,
    ),
)
