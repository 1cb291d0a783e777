"""Finds due work: studies that are complete, series that are accepted.

Runs in one worker process. Starting the same work twice has no effect, so that the start of a node
is also its recovery.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from rebrain_node.domain.completeness import CompletenessVerdict
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import Job
from rebrain_node.domain.ledger import Judgement, SeriesRecord
from rebrain_node.domain.selection import Candidate
from rebrain_node.domain.text import reference
from rebrain_node.errors import StoreUnavailableError, SupersededError
from rebrain_node.reception.asking import judge_completeness
from rebrain_node.reception.completeness import QuietPeriodTracker
from rebrain_node.store.listening import ListeningClock
from rebrain_node.store.recall import Recall
from rebrain_node.worker.sources import SourceInquiry
from rebrain_node.worker.work import TRIES, Work, reason_of
from rebrain_node.worker.workflow import Workflows

if TYPE_CHECKING:
    from rebrain_node.reception.inbox import InboxFolder

#: pause between two polls of the ledger, s
POLL_S: Final = 0.25
#: pause after a poll that failed, s
REST_S: Final = 2.0
#: pause between two checks for series that crash their worker, s
CRASHES_S: Final = 5.0

_LOG = structlog.get_logger("watcher")


@dataclass(kw_only=True)
class Watcher:
    """Judges complete studies and starts the work that follows."""

    work: Work
    workflows: Workflows
    inbox: Callable[[], InboxFolder]  #: called at the first study
    settling: QuietPeriodTracker
    listening: ListeningClock
    folder: Path  #: whose free space is watched
    soft_mark_bytes: int  #: below it nothing new is judged
    recall: Recall  #: gets the rejection notes of other systems
    sources: SourceInquiry | None = None  #: None where no source is to be asked
    _started: set[object] = field(default_factory=set)
    _failed: dict[str, int] = field(default_factory=dict)  #: failed judgements by study
    _full: bool = False
    _prepared: bool = False  #: whether the engine was started for the first study
    _crashes_due_s: float = 0.0  #: monotonic

    def run(self, stop: threading.Event) -> None:
        """Poll until ``stop``; a poll that fails is followed by another one."""
        while not stop.wait(POLL_S):
            try:
                self.poll()
            except StoreUnavailableError as error:
                _LOG.warning("store unavailable", reason=str(error))
                stop.wait(REST_S)
            except Exception as error:  # noqa: BLE001 - the node must go on with all other studies
                _LOG.warning("poll failed", reason=reason_of(error))
                stop.wait(REST_S)

    def poll(self) -> None:
        """Poll once: judge what is complete, start the synthesis of what is accepted."""
        if self._has_room():
            self._complete_what_is_settled()
            for study_instance_uid in self.work.ledger.studies_to_judge():
                self._judge(study_instance_uid)
        accepted = self.work.ledger.series("accepted")
        for record in accepted:
            self._once(_work_of(record), self.workflows.start_synthesis)
        if time.monotonic() >= self._crashes_due_s:
            self._crashes_due_s = time.monotonic() + CRASHES_S
            self._fail_crashing(accepted)

    def _complete_what_is_settled(self) -> None:
        listened = self.listening.read()
        studies = self.work.ledger.studies_in_reception()
        if studies and not self._prepared:
            self._prepared = True
            threading.Thread(target=self.work.prepare, name="prepare", daemon=True).start()
        for study, verdict in self.settling.settled(studies, listened):
            found: Mapping[str, CompletenessVerdict] | None = {}
            if self.sources is not None:
                found = self.sources.verdicts(study.study_instance_uid)
            if found is not None:
                self.work.ledger.complete(study, verdict.details, found)

    def _judge(self, study_instance_uid: str) -> None:
        from rebrain_node.pipeline import judge_study  # not before the first study: it is large

        records = self.work.ledger.series(study=study_instance_uid)
        self._take_rejections(study_instance_uid)
        try:
            study = self.inbox().read_study(study_instance_uid)
            refused = any(record.state == "refused" for record in records)
            unfit = dict(self.work.ledger.unfit(study_instance_uid)) if refused else {}
            incomplete = self._incomplete(records)
            unfit |= {uid: (f,) for uid, f in incomplete.items() if f.severity == "refuse"}
            selection = judge_study(study, self.work.configuration().limits, unfit)
            judgements = _judgements(selection.candidates, records, incomplete)
            self.work.ledger.judge(study_instance_uid, judgements)
        except SupersededError:
            return
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - a study that cannot be read is refused by name
            self._cannot_judge(study_instance_uid, records, reason_of(error))
            return
        _LOG.info(
            "judged",
            study=reference(study_instance_uid),
            series=len(judgements),
            accepted=sum(judgement.decision == "accepted" for judgement in judgements),
        )

    def _incomplete(self, records: Sequence[SeriesRecord]) -> Mapping[str, Finding]:
        """Say of which series not all arrived, or which must be verified and are not, by UID."""
        if self.sources is None:
            return {}
        required = self.sources.rules.required
        severity = self.work.configuration().limits.severity("SOURCE-HAS-MORE")
        found = {}
        for record in records:
            finding = judge_completeness(record, required=required, severity=severity)
            if finding is not None:
                found[record.series_instance_uid] = finding
        return found

    def _take_rejections(self, study_instance_uid: str) -> None:
        """Record the rejection notes among the instances of a study; nothing is deleted.

        Their series are read alone: that of the rejected result may be purged.

        Raises
        ------
        StoreUnavailableError
            The database cannot be used now.
        """
        from rebrain_node.instance.rejection_note import KEY_OBJECT_SELECTION, rejection_of

        held = self.work.ledger.instances(study=study_instance_uid)
        for uid in dict.fromkeys(
            one.series_instance_uid for one in held if one.sop_class_uid == KEY_OBJECT_SELECTION
        ):
            job = Job(study_instance_uid=study_instance_uid, series_instance_uid=uid)
            try:
                notes = [rejection_of(each) for each in self.inbox().read(job)]
            except StoreUnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - the study must be judged all the same
                _LOG.warning("key objects not read", series=reference(uid), reason=reason_of(error))
                continue
            for note in notes:
                if note is not None and (count := self.recall.record_rejection(note)):
                    _LOG.warning("rejection received", title=note.title, objects=count)

    def _cannot_judge(
        self, study_instance_uid: str, records: Sequence[SeriesRecord], reason: str
    ) -> None:
        """Refuse all series of a study whose judgement failed ``TRIES`` times."""
        failures = self._failed[study_instance_uid] = self._failed.get(study_instance_uid, 0) + 1
        _LOG.warning("judgement failed", study=reference(study_instance_uid), reason=reason)
        if failures < TRIES:
            return
        finding = Finding(
            code="FAILED", sentence=f"the study could not be judged in {TRIES} tries: {reason}"
        )
        self.work.ledger.judge(
            study_instance_uid,
            [
                Judgement(
                    series_instance_uid=record.series_instance_uid,
                    revision=record.revision,
                    decision="refused",
                    findings=(finding,),
                )
                for record in records
            ],
        )

    def _fail_crashing(self, accepted: Sequence[SeriesRecord]) -> None:
        """Fail each series that ended its worker process at every try."""
        for record in accepted:
            if self.workflows.has_given_up(*_work_of(record)):
                self.work.give_up(
                    record.series_instance_uid,
                    record.revision,
                    "it ended its worker process each time",
                )

    def _once(
        self, key: tuple[str, int, datetime], start: Callable[[str, int, datetime], None]
    ) -> None:
        if key not in self._started:
            start(*key)
            self._started.add(key)

    def _has_room(self) -> bool:
        free = shutil.disk_usage(self.folder).free
        full = free < self.soft_mark_bytes
        if full != self._full:
            self._full = full
            _LOG.warning("disk low" if full else "disk has room again", free_bytes=free)
        return not full


def _work_of(record: SeriesRecord) -> tuple[str, int, datetime]:
    """Series, revision and time of its acceptance: what names one synthesis."""
    return record.series_instance_uid, record.revision, record.changed_at


def _judgements(
    candidates: Sequence[Candidate],
    records: Sequence[SeriesRecord],
    incomplete: Mapping[str, Finding],
) -> tuple[Judgement, ...]:
    """Decisions about the series whose revision was known before their instances were read."""
    flags = {uid: (finding,) for uid, finding in incomplete.items() if finding.severity == "flag"}
    revisions = {record.series_instance_uid: record.revision for record in records}
    return tuple(
        Judgement(
            series_instance_uid=candidate.series_instance_uid,
            revision=revisions[candidate.series_instance_uid],
            decision=candidate.decision,
            findings=(*candidate.findings, *flags.get(candidate.series_instance_uid, ())),
            explanation=candidate.explanation,
        )
        for candidate in candidates
        if candidate.series_instance_uid in revisions
    )
