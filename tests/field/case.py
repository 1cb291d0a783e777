"""A situation of the field and what is right for it: the input is made, judged, and compared."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tests.field
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.selection import Candidate
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.folder import Folder, judge_folder, read_folder
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.check import check


@dataclass(frozen=True, kw_only=True)
class Case:
    """One situation that hospitals really send.

    `expected` is what `verdict` must return: ``accepted``, ``accepted: CODE, CODE`` (flags,
    sorted), ``refused: CODE`` (the deciding code of the series of interest, the first with the
    most instances), or ``not received: CODE`` (no file was taken as an instance).
    """

    name: str  #: lower case with hyphens, e.g. ``scout-inside-the-axial-series``
    group: str  #: what is tried, e.g. ``contrast``
    situation: str  #: one sentence
    source: str  #: where it was reported or documented, e.g. ``PS3.3 C.7.6.1.1.2``
    expected: str
    make: Callable[[Path], None]  #: writes the files of the study below a folder
    pixels: bool = False  #: whether the pixels are checked too, after the headers
    #: a word or value that the sentence of the deciding finding must contain
    sentence: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the node says of a case."""

    text: str  #: in the form of `Case.expected`
    findings: tuple[Finding, ...]


def cases() -> Iterator[Case]:
    """Every case of every module ``tests/field/cases_*.py``, in their order."""
    for module in sorted(pkgutil.iter_modules(tests.field.__path__), key=lambda m: m.name):
        if module.name.startswith("cases_"):
            yield from importlib.import_module(f"tests.field.{module.name}").CASES


def verdict(folder: Path, limits: Limits, *, pixels: bool) -> Verdict:
    """Judge the study below a folder as the node does, without synthesising it."""
    study = read_folder(folder)
    candidates = judge_folder(study, limits)
    if not candidates:
        return Verdict(text=f"not received: {study.refused[0].code}", findings=())
    unfit: dict[str, tuple[Finding, ...]] = {}
    while accepted := [c for c in candidates if c.decision == "accepted"]:
        try:
            checked = _checked(study, accepted[0], limits) if pixels else ()
        except SeriesRejectedError as error:
            unfit[accepted[0].series_instance_uid] = error.findings
            candidates = judge_folder(study, limits, unfit)
        else:
            findings = accepted[0].findings + checked
            break
    else:
        largest = max(candidates, key=lambda candidate: candidate.instances)
        return Verdict(text=f"refused: {largest.codes[0]}", findings=largest.findings)
    flags = ", ".join(sorted({finding.code for finding in findings}))
    return Verdict(text=f"accepted: {flags}" if flags else "accepted", findings=findings)


def _checked(study: Folder, candidate: Candidate, limits: Limits) -> tuple[Finding, ...]:
    instances = [
        i for i in study.instances if str(i.SeriesInstanceUID) == candidate.series_instance_uid
    ]
    return check(assemble(instances, limits.geometry), instances, limits)
