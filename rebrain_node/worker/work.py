"""The synthesis of one series by a worker, and what a failure of it means.

Safe to repeat at any point: it reads the facts first, and changes them in one transaction at the
end. This is one of the three places where errors are caught.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Final, Literal

import structlog

from rebrain_node.domain.audit import Event
from rebrain_node.domain.completeness import as_completeness
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import Job, Receipt
from rebrain_node.domain.ledger import SeriesRecord, SeriesState
from rebrain_node.domain.stop_rules import ResultMeasures
from rebrain_node.domain.text import reference
from rebrain_node.errors import (
    GateError,
    RebrainError,
    SeriesRejectedError,
    StoreUnavailableError,
    SupersededError,
)
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox, ResultOptions
from rebrain_node.store.stops import Stops

if TYPE_CHECKING:
    from rebrain_node.pipeline import Configuration, Ports

_LOG = structlog.get_logger("worker")

#: how often one series is tried, by failure or by crash, before it is failed with a reason
TRIES: Final = 3
#: ``done``: nothing is left to do; ``again``: this try failed; ``wait``: the store is down
Outcome = Literal["done", "again", "wait"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one worker does; the facts are in the ledger and the outbox."""

    ledger: Ledger
    outbox: Outbox
    ports: Callable[[], Ports]  #: called when the first study arrives: it loads the engine
    configuration: Callable[[], Configuration]  #: called at the first study: it loads the bundle
    destinations: tuple[str, ...]  #: names in the settings; in shadow mode the test destination
    notified: tuple[tuple[str, str], ...] = ()  #: `Settings.notified`
    options: ResultOptions = field(default_factory=ResultOptions)  #: shadow mode, stop rules
    stops: Stops | None = None  #: judged after each failure; None judges nothing

    def prepare(self) -> None:
        """Load the engine while a study is still arriving.

        A failure is logged; the first series tries again, and fails with its reason.
        """
        try:
            import rebrain_node.pipeline  # noqa: F401 # large, so not before the first study

            self.ports()
        except Exception as error:  # noqa: BLE001 - the node must go on receiving
            _LOG.warning("engine does not start", reason=reason_of(error))

    def synthesise(self, series_instance_uid: str, revision: int, attempt: int) -> Outcome:
        """Make the derived set of an accepted series and put it into the outbox.

        ``done`` also where there is nothing to make: the series is refused, failed, superseded
        or already made. After the last of ``TRIES`` attempts the series is failed with a reason.
        """
        try:
            return self._synthesise(series_instance_uid, revision, attempt)
        except SupersededError:
            return "done"
        except StoreUnavailableError as error:
            _LOG.warning("store unavailable", reason=str(error))
            return "wait"

    def give_up(self, series_instance_uid: str, revision: int, reason: str) -> None:
        """Fail a series that could not be processed in ``TRIES`` attempts."""
        finding = Finding(
            code="FAILED",
            sentence=f"the series was tried {TRIES} times and not finished: {reason}",
            value=TRIES,
            limit=TRIES,
        )
        self._end(series_instance_uid, revision, "failed", Event.SERIES_FAILED, (finding,))

    def _synthesise(self, series_instance_uid: str, revision: int, attempt: int) -> Outcome:
        record = self.ledger.series_one(series_instance_uid)
        if record is None or record.revision != revision or record.state != "accepted":
            return "done"
        log = _LOG.bind(series=reference(series_instance_uid), attempt=attempt)
        try:
            self._make(record)
        except (StoreUnavailableError, SupersededError):
            raise
        except SeriesRejectedError as error:
            log.info("refused", codes=[finding.code for finding in error.findings])
            codes = [finding.code for finding in error.findings]
            if self.ledger.refuse_selected(*_key(record), {"codes": codes}, error.findings):
                log.info("study is judged again", study=reference(record.study_instance_uid))
        except GateError as error:
            log.critical("gate refused", codes=[finding.code for finding in error.findings])
            self._end(*_key(record), "failed", Event.GATE_REFUSED, error.findings)
        except Exception as error:  # noqa: BLE001 - one failing series must not stop the worker
            log.warning("attempt failed", reason=reason_of(error))
            if attempt < TRIES:
                return "again"
            self.give_up(series_instance_uid, revision, reason_of(error))
        return "done"

    def _make(self, record: SeriesRecord) -> None:
        job = Job(
            study_instance_uid=record.study_instance_uid,
            series_instance_uid=record.series_instance_uid,
            revision=record.revision,
            findings=record.findings,
            predecessor=self.outbox.predecessor(*_key(record)),
            completeness=as_completeness(record.completeness),
        )
        from rebrain_node.pipeline import process  # not before the first job: it is large

        receipt = process(job, self.ports(), self.configuration())
        options = replace(
            self.options, measures=measures_of(receipt), manifest=receipt.manifest.text
        )
        set_id = self.outbox.put(receipt.derived, self.destinations, job, self.notified, options)
        _LOG.info(
            "synthesised",
            series=reference(record.series_instance_uid),
            set=set_id,
            seconds=round(receipt.seconds, 1),
        )

    def _end(
        self,
        series_instance_uid: str,
        revision: int,
        state: SeriesState,
        event: Event,
        findings: tuple[Finding, ...],
    ) -> None:
        details = {"codes": [finding.code for finding in findings]}
        self.ledger.transition(series_instance_uid, revision, state, event, details, findings)
        if self.stops is not None:
            self.stops.judge(self.options.limits)


def measures_of(receipt: Receipt) -> ResultMeasures:
    """Collect what the stop rules and the acceptance report look at."""
    seen = [value for value in receipt.uncertainty if value > 0.0]
    ood, tissue = receipt.ood, receipt.tissue
    return ResultMeasures(
        uncertainty=round(fmean(seen), 5) if seen else None,
        uncertainty_limit=receipt.meaning.untrusted_above,
        untrusted=sum(receipt.meaning.trusts(value) is False for value in receipt.uncertainty),
        slices=len(receipt.uncertainty),
        ood_score=None if ood is None else round(ood.score, 3),
        ood_threshold=None if ood is None else round(ood.threshold, 3),
        brain_hu=None if tissue is None else tissue.measured_hu and round(tissue.measured_hu, 2),
        expected_hu=None if tissue is None else tissue.expected_hu,
        deviations={} if ood is None else {k: round(v, 2) for k, v in ood.deviations.items()},
    )


def reason_of(error: Exception) -> str:
    """Say what failed; of an error that is not ours only its kind and place, never its text."""
    if isinstance(error, RebrainError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {place}"


def _key(record: SeriesRecord) -> tuple[str, int]:
    return record.series_instance_uid, record.revision
