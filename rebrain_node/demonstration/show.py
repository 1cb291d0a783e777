"""The demonstration: a node, a PACS, one study that is synthesised and eleven that are judged."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset

from rebrain_node.app.compose import State, open_bundle, open_state
from rebrain_node.app.reports import write_audit_report
from rebrain_node.demonstration.cases import CaseVerdict, demo_cases, judge_case
from rebrain_node.demonstration.returned import volume_of
from rebrain_node.demonstration.running_node import running_node
from rebrain_node.demonstration.score import Score, score
from rebrain_node.demonstration.study import Head, load_head, simulate_study
from rebrain_node.domain.ledger import SeriesRecord
from rebrain_node.domain.volume import SyntheticVolume
from rebrain_node.errors import RebrainError
from rebrain_node.folder import read_folder
from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.recipe import Recipe
from rebrain_node.network.mini_pacs import MiniPacs
from rebrain_node.network.sender import send_files
from rebrain_node.report.overview import overview
from rebrain_node.settings import DestinationSettings

PACS_AE_TITLE: Final = "MINI-PACS"
#: a synthesis takes half a minute on two quiet cores
_TIMEOUT_S: Final = 900.0
_ENDED: Final = ("published", "refused", "failed")

Progress = Callable[[str], None]  #: called with a short description of the current stage


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table: a study, what is right for it, and what came of it."""

    sent: str
    expected: str
    got: str
    as_expected: bool
    why: str  #: the sentence of the deciding finding
    synthesised: bool = False  #: sent over the network and synthesised, not only judged


@dataclass(frozen=True, kw_only=True)
class DemonstrationResult:
    """The outcome of the demonstration."""

    rows: tuple[Row, ...]
    objects: tuple[Path, ...]
    picture: Path | None  #: None where no result was made
    report: Path
    score: Score | None  #: only of the shipped head, whose true T1 is known
    seconds: float

    @property
    def as_expected(self) -> bool:
        """Whether every line of the table is as expected."""
        return all(row.as_expected for row in self.rows)


def show(out: Path, study: Path | None, progress: Progress) -> DemonstrationResult:
    """Run the demonstration once and write objects, picture and audit report into ``out``.

    Parameters
    ----------
    out : Path
        Objects of an earlier demonstration in it are replaced.
    study : Path or None
        Folder of a study to send; None for the shipped head.
    progress : callable
        Called with a short description of each stage.

    Raises
    ------
    RebrainError
        The node does not start, or does not finish what it was sent in time.
    """
    begun = time.monotonic()
    progress("reading the study" if study is not None else "simulating the head CT")
    source, head = _source(study)
    with tempfile.TemporaryDirectory(prefix="rebrain-demo-") as scratch:
        folder = Path(scratch)
        progress("starting the node")
        with (
            MiniPacs(PACS_AE_TITLE, folder / "pacs") as pacs,
            running_node(folder, PACS_AE_TITLE, pacs.port) as node,
            open_state(node.settings) as state,
        ):
            loop = _Run(
                folder=folder, address=node.address, state=state, pacs=pacs, progress=progress
            )
            rows = loop.run(source, head)
            report = out / "audit-report.html"
            out.mkdir(parents=True, exist_ok=True)
            write_audit_report(node.settings, report)
            objects = _keep(pacs.instances(), out / "objects")
    picture = figures = None
    if objects:
        progress("rendering the picture")
        made_by = open_bundle(node.settings).bundle
        volume = replace(_volume(source, objects, made_by.recipe), meaning=made_by.meaning)
        picture = out / "overview.png"
        caption = f"{len(volume.prepared.hu)} slices in, bundle {made_by.name} {made_by.version}"
        picture.write_bytes(overview(volume, caption))
        figures = None if head is None else score(volume, head, made_by.recipe)
    return DemonstrationResult(
        rows=rows,
        objects=objects,
        picture=picture,
        report=report,
        score=figures,
        seconds=time.monotonic() - begun,
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Sends the studies in order and waits for the result of each."""

    folder: Path
    address: DestinationSettings
    state: State
    pacs: MiniPacs
    progress: Progress

    def run(self, source: Sequence[Dataset], head: Head | None) -> tuple[Row, ...]:
        """Send one study and, while it is processed, judge the others beside the node.

        `head` is None where the study is not of the shipped head.
        """
        self._send("head-ct", source)
        study_uid = str(source[0].StudyInstanceUID)
        self.progress("judging the other studies")
        limits = shipped_limits()
        rows = []
        for case in demo_cases(head or load_head()):
            verdict = judge_case(case.instances, limits)
            rows.append(_row(case.name, case.right, verdict))
        name = "the study given" if head is None else "thick slices, gantry tilt"
        first = self._first(name, study_uid)
        own = [
            image
            for path in self.pacs.instances()
            if (image := dcmread(path, stop_before_pixels=True)).Modality == "MR"
        ]
        if own:
            verdict = judge_case(own, limits)
            rows.append(_row("its own synthetic output", "refused: SRC-SYNTHETIC", verdict))
        return (first, *rows)

    def _send(self, name: str, instances: Sequence[Dataset]) -> None:
        """Send instances over one association.

        Raises
        ------
        RebrainError
            The node did not take one of them.
        """
        self.progress(f"sending: {name}")
        outgoing = self.folder / "outgoing" / name
        outgoing.mkdir(parents=True)
        paths = []
        for place, instance in enumerate(instances):
            paths.append(outgoing / f"{place:04}.dcm")
            instance.save_as(paths[-1], enforce_file_format=True)
        for sent in send_files(self.address, PACS_AE_TITLE, paths):
            if not sent.taken:
                raise RebrainError(f"the node did not take an instance of {name}: {sent.sentence}")

    def _first(self, name: str, study_uid: str) -> Row:
        self.progress("synthesising")
        records = self._await(study_uid, lambda r: r.state in _ENDED)
        published = sum(record.state == "published" for record in records)
        kinds = Counter(
            str(dcmread(p, specific_tags=["Modality"]).Modality) for p in self.pacs.instances()
        )
        came = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        done = published == 1 and kinds["MR"] > 0
        return Row(
            sent=name,
            expected="taken, synthesised",
            got="taken, synthesised" if done else _codes(records),
            as_expected=done,
            why=f"sent over the network; came back: {came}" if came else _sentence(records),
            synthesised=done,
        )

    def _await(
        self, study_uid: str, done: Callable[[SeriesRecord], bool]
    ) -> tuple[SeriesRecord, ...]:
        """Wait until all series of a study are ``done``.

        Raises
        ------
        RebrainError
            It takes too long.
        """
        deadline = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline:
            records = self.state.ledger.series(study=study_uid)
            if records and all(done(record) for record in records):
                return records
            time.sleep(0.1)
        raise RebrainError(f"the node was not done with a study within {_TIMEOUT_S:g} s")


def _row(name: str, right: str, verdict: CaseVerdict) -> Row:
    return Row(
        sent=name,
        expected=right,
        got=verdict.text,
        as_expected=verdict.text == right,
        why=verdict.sentence,
    )


def _codes(records: Sequence[SeriesRecord]) -> str:
    """State and finding codes of the series of a study, each once."""
    states = dict.fromkeys(record.state for record in records)
    codes = dict.fromkeys(
        finding.code
        for record in records
        for finding in record.findings
        if finding.severity == "refuse"
    )
    return ", ".join(states) + (f": {', '.join(codes)}" if codes else "")


def _sentence(records: Sequence[SeriesRecord]) -> str:
    findings = [finding for record in records for finding in record.findings]
    return findings[0].sentence if findings else "no finding"


def _keep(instances: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Copy what the PACS received; objects of an earlier demonstration are deleted."""
    if folder.exists():
        for old in folder.glob("*.dcm"):
            old.unlink()
    folder.mkdir(exist_ok=True)
    return tuple(Path(shutil.copy2(path, folder / path.name)) for path in instances)


def _source(study: Path | None) -> tuple[Sequence[Dataset], Head | None]:
    """Return the instances to send, and the head if its true T1 is known."""
    if study is not None:
        return read_folder(study).instances, None
    demo = simulate_study()
    return demo.instances, demo.head


def _volume(source: Sequence[Dataset], objects: Sequence[Path], recipe: Recipe) -> SyntheticVolume:
    """Rebuild the result from the files of the PACS and the series that they reference."""
    derived = [dcmread(path) for path in objects]
    image = next(instance for instance in derived if instance.Modality == "MR")
    series_uid = image.ReferencedSeriesSequence[0].SeriesInstanceUID
    used = [instance for instance in source if instance.SeriesInstanceUID == series_uid]
    return volume_of(used, derived, recipe)
