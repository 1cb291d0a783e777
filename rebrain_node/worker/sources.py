"""Asks the sources of quiet studies how many instances their series have.

Each source has a thread of its own, so that one that does not answer holds up neither the worker
nor the series of another. What is in flight is not kept: after a restart a question is asked
again, the answers that were there count on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import structlog

from rebrain_node.domain.completeness import CompletenessVerdict, Inquiry
from rebrain_node.domain.text import reference
from rebrain_node.errors import SettingsError, StoreUnavailableError
from rebrain_node.ports import Source
from rebrain_node.reception.asking import AskingRules, is_due, judge_answers
from rebrain_node.store.inquiries import Inquiries
from rebrain_node.worker.work import reason_of

#: pause between two looks at the answers about one study, s
LOOK_S: Final = 1.0
_LOG = structlog.get_logger("sources")
_Key = tuple[str, str]  # study, name of the source
#: what is wrong with an answer stands in the first characters of a long sentence
_LONGEST_FAILURE: Final = 400


@dataclass(kw_only=True)
class SourceInquiry:
    """Finds the verdict of completeness on the series of a study."""

    inquiries: Inquiries
    sources: Mapping[str, Source]  #: by name
    source_of: Mapping[str, str]  #: name of the source, by calling AE title
    rules: AskingRules
    clock: Callable[[], float]  #: the clock of listening, s
    _threads: dict[str, ThreadPoolExecutor] = field(default_factory=dict)
    _asking: dict[_Key, Future[None]] = field(default_factory=dict)
    _look_s: dict[str, float] = field(default_factory=dict)  #: monotonic, by study: the next look

    def verdicts(self, study: str) -> Mapping[str, CompletenessVerdict] | None:
        """Return the verdict on each CT series of a quiet study; None while they are awaited.

        To be called often; asks what is due, and never waits for an answer.

        Raises
        ------
        StoreUnavailableError
            The database cannot be used now.
        """
        if time.monotonic() < self._look_s.get(study, 0.0):
            return None
        # before the rows are read: a question that has ended has written its answer
        self._asking = {key: each for key, each in self._asking.items() if not each.done()}
        now_s = self.clock()
        open_ones, found = [], {}
        for inquiry in self.inquiries.of_study(study, now_s, self.source_of.get):
            verdict = judge_answers(inquiry, now_s, self.rules)
            if verdict is None:
                open_ones.append(inquiry)
            else:
                found[inquiry.series_instance_uid] = verdict
        if not open_ones:
            self._look_s.pop(study, None)
            return found
        self._look_s[study] = time.monotonic() + min(LOOK_S, self.rules.pause_s)
        for name in {str(each.source) for each in open_ones}:
            due = [e for e in open_ones if e.source == name and is_due(e, now_s, self.rules)]
            if due and (study, name) not in self._asking:
                self._asking[study, name] = self._thread(name).submit(self._ask, name, study, due)
        return None

    def _thread(self, name: str) -> ThreadPoolExecutor:
        if name not in self._threads:
            self._threads[name] = ThreadPoolExecutor(1, thread_name_prefix=f"source-{name}")
        return self._threads[name]

    def _ask(self, name: str, study: str, due: list[Inquiry]) -> None:
        """Ask once and keep what came of it; a database that is down loses one answer."""
        try:
            try:
                held = {each.series_instance_uid: each.received for each in due}
                answers = self._source(name).ask(study, held)
            except Exception as error:  # noqa: BLE001 - whatever a source answers, others go on
                _LOG.warning("source not asked", source=name, reason=reason_of(error))
                for each in due:
                    failure = reason_of(error)[:_LONGEST_FAILURE]
                    self.inquiries.record_failure(each, failure, self.clock())
                return
            for each in due:
                answer = answers[each.series_instance_uid]
                self.inquiries.record_answer(each, answer, self.clock())
                _LOG.info(
                    "source asked",
                    source=name,
                    series=reference(each.series_instance_uid),
                    here=each.received,
                    there=answer.count,
                )
        except StoreUnavailableError as error:
            _LOG.warning("store unavailable", reason=str(error))

    def _source(self, name: str) -> Source:
        if name not in self.sources:
            raise SettingsError(
                f"the settings no longer have a source {name!r}; add it, or correct "
                "receiver.peers.query"
            )
        return self.sources[name]
