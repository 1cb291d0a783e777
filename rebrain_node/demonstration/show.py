"""The demonstration, top to bottom: a node, a PACS, one study to take and four to refuse."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset

from rebrain_node.app.compose import State, open_bundle, open_state
from rebrain_node.app.tasks import write_audit_report
from rebrain_node.demonstration.refused import refused_studies
from rebrain_node.demonstration.returned import volume_of
from rebrain_node.demonstration.running_node import running_node
from rebrain_node.demonstration.score import Score, score
from rebrain_node.demonstration.study import Head, draw_study
from rebrain_node.domain.ledger import SeriesRecord
from rebrain_node.domain.volume import SyntheticVolume
from rebrain_node.errors import RebrainError
from rebrain_node.folder import read_folder
from rebrain_node.instance.header import frames
from rebrain_node.model.recipe import Recipe
from rebrain_node.network.mini_pacs import MiniPacs
from rebrain_node.network.sender import send_files
from rebrain_node.report.overview import overview
from rebrain_node.settings import DestinationSettings

PACS_AE_TITLE: Final = "MINI-PACS"
#: a synthesis takes half a minute on two quiet cores
_PATIENCE_S: Final = 900.0
_ENDED: Final = ("published", "refused", "failed")

Told = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    sent: str
    expected: str
    got: str
    as_expected: bool


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the demonstration came to."""

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


def show(out: Path, study: Path | None, told: Told) -> Shown:
    """Run the whole loop once and leave objects, picture and audit report in ``out``.

    Parameters
    ----------
    out : Path
        Objects of an earlier demonstration in it are replaced.
    study : Path or None
        Folder of a study to send; None for the shipped head.
    told : callable
        Told in a few words what is being done.

    Raises
    ------
    RebrainError
        The node does not start, or does not come to an end with what it was sent.
    """
    begun = time.monotonic()
    told("reading the study" if study is not None else "drawing the head CT")
    source, head = _source(study)
    with tempfile.TemporaryDirectory(prefix="rebrain-demo-") as scratch:
        folder = Path(scratch)
        told("starting the node")
        with (
            MiniPacs(PACS_AE_TITLE, folder / "pacs") as pacs,
            running_node(folder, PACS_AE_TITLE, pacs.port) as node,
            open_state(node.settings) as state,
        ):
            loop = _Loop(folder=folder, address=node.address, state=state, pacs=pacs, told=told)
            rows = loop.run(source)
            report = out / "audit-report.html"
            out.mkdir(parents=True, exist_ok=True)
            write_audit_report(node.settings, report)
            objects = _keep(pacs.instances(), out / "objects")
    picture = found = None
    if objects:
        told("drawing the picture")
        made_by = open_bundle(node.settings).bundle
        volume = replace(_volume(source, objects, made_by.recipe), meaning=made_by.meaning)
        picture = out / "overview.png"
        caption = f"{len(volume.prepared.hu)} slices in, bundle {made_by.name} {made_by.version}"
        picture.write_bytes(overview(volume, caption))
        found = None if head is None else score(volume, head, made_by.recipe)
    return Shown(
        rows=rows,
        objects=objects,
        picture=picture,
        report=report,
        score=found,
        seconds=time.monotonic() - begun,
    )


@dataclass(frozen=True, kw_only=True)
class _Loop:
    """What is sent, in order, and what comes of each."""

    folder: Path
    address: DestinationSettings
    state: State
    pacs: MiniPacs
    told: Told

    def run(self, source: Sequence[Dataset]) -> tuple[Row, ...]:
        """Send the good study, then those to be refused while it is worked on."""
        self._send("head-ct", source)
        study_uid = str(source[0].StudyInstanceUID)
        accepted = self._accepted(study_uid)
        rows = []
        if accepted is not None:
            refused = refused_studies(_in_order(source, accepted))
            for one in refused:
                self._send(one.name, one.instances)
            rows = [self._refused(one.name, one.study_uid, one.code) for one in refused]
        good = self._good(study_uid)
        returned = [dcmread(path) for path in self.pacs.instances()]
        own = [instance for instance in returned if instance.Modality == "MR"]
        if own:
            self._send("own-output", own)
            rows.append(self._own(str(own[0].SeriesInstanceUID)))
        return (good, *rows)

    def _send(self, name: str, instances: Sequence[Dataset]) -> None:
        """Send instances over one association.

        Raises
        ------
        RebrainError
            The node did not take one of them.
        """
        self.told(f"sending: {name}")
        outgoing = self.folder / "outgoing" / name
        outgoing.mkdir(parents=True)
        paths = []
        for place, instance in enumerate(instances):
            paths.append(outgoing / f"{place:04}.dcm")
            instance.save_as(paths[-1], enforce_file_format=True)
        for sent in send_files(self.address, PACS_AE_TITLE, paths):
            if not sent.taken:
                raise RebrainError(f"the node did not take an instance of {name}: {sent.sentence}")

    def _accepted(self, study_uid: str) -> str | None:
        """Series Instance UID of the series that was accepted; None if all were refused."""
        self.told("waiting until the study is complete")
        records = self._await(study_uid, lambda r: r.state not in {"receiving", "complete"})
        chosen = [r.series_instance_uid for r in records if r.state != "refused"]
        return chosen[0] if chosen else None

    def _good(self, study_uid: str) -> Row:
        self.told("synthesising")
        records = self._await(study_uid, lambda r: r.state in _ENDED)
        published = sum(record.state == "published" for record in records)
        kinds = Counter(
            str(dcmread(p, specific_tags=["Modality"]).Modality) for p in self.pacs.instances()
        )
        got = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or _codes(records)
        return Row(
            sent="head CT, thick slices",
            expected="one synthetic series",
            got=got,
            as_expected=published == 1 and kinds["MR"] > 0,
        )

    def _refused(self, name: str, study_uid: str, code: str) -> Row:
        self.told(f"waiting for the refusal: {name}")
        records = self._await(study_uid, lambda r: r.state in _ENDED)
        codes = {finding.code for record in records for finding in record.findings}
        refused = all(record.state == "refused" for record in records)
        return Row(
            sent=name, expected=f"refused: {code}", got=_codes(records),
            as_expected=refused and code in codes,
        )  # fmt: skip

    def _await(
        self, study_uid: str, done: Callable[[SeriesRecord], bool]
    ) -> tuple[SeriesRecord, ...]:
        """Wait until all series of a study are ``done``.

        Raises
        ------
        RebrainError
            It takes too long.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            records = self.state.ledger.series(study=study_uid)
            if records and all(done(record) for record in records):
                return records
            time.sleep(0.1)
        raise RebrainError(f"the node was not done with a study within {_PATIENCE_S:g} s")

    def _own(self, series_uid: str) -> Row:
        """Wait for the refusal of its own series, sent back as it is into the same study.

        Raises
        ------
        RebrainError
            It takes too long.
        """
        self.told("waiting for the refusal: its own synthetic output")
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            record = self.state.ledger.series_one(series_uid)
            if record is not None and record.state in _ENDED:
                codes = {finding.code for finding in record.findings}
                return Row(
                    sent="its own synthetic output",
                    expected="refused: SRC-SYNTHETIC",
                    got=_codes([record]),
                    as_expected=record.state == "refused" and "SRC-SYNTHETIC" in codes,
                )
            time.sleep(0.1)
        raise RebrainError(f"its own output was not judged within {_PATIENCE_S:g} s")


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


def _in_order(source: Sequence[Dataset], series_uid: str) -> list[Dataset]:
    """Instances of a series along its slices."""
    chosen = [instance for instance in source if str(instance.SeriesInstanceUID) == series_uid]
    heights = [frame.distance_mm or 0.0 for frame in frames(chosen)]
    return [
        instance for _, instance in sorted(zip(heights, chosen, strict=True), key=itemgetter(0))
    ]


def _keep(instances: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Copy what the PACS got; objects of an earlier demonstration make room."""
    if folder.exists():
        for old in folder.glob("*.dcm"):
            old.unlink()
    folder.mkdir(exist_ok=True)
    return tuple(Path(shutil.copy2(path, folder / path.name)) for path in instances)


def _source(study: Path | None) -> tuple[Sequence[Dataset], Head | None]:
    """What is sent, and the head behind it where its truth is known."""
    if study is not None:
        return read_folder(study).instances, None
    drawn = draw_study()
    return drawn.instances, drawn.head


def _volume(source: Sequence[Dataset], objects: Sequence[Path], recipe: Recipe) -> SyntheticVolume:
    """Rebuild the result from the PACS's files and the series they refer to."""
    derived = [dcmread(path) for path in objects]
    image = next(instance for instance in derived if instance.Modality == "MR")
    series_uid = image.ReferencedSeriesSequence[0].SeriesInstanceUID
    used = [instance for instance in source if instance.SeriesInstanceUID == series_uid]
    return volume_of(used, derived, recipe)
