"""A workflow manager over UPS-RS on loopback that keeps the states of PS3.4 CC.1.1."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom.dataset import Dataset

FINAL = ("COMPLETED", "CANCELED")
CODE = "SYNMR"


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def code(value: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator="99TEST", CodeMeaning=value)


def a_workitem(uid: str, *studies: str, code_value: str = CODE, station: str = "NODE") -> Dataset:
    """A scheduled workitem whose input names studies."""
    return _item(
        SOPInstanceUID=uid,
        ProcedureStepState="SCHEDULED",
        ScheduledWorkitemCodeSequence=[code(code_value)],
        ScheduledStationNameCodeSequence=[code(station)],
        InputInformationSequence=[_item(StudyInstanceUID=study) for study in studies],
    )


@dataclass
class Manager:
    """The worklist, and what came."""

    form: str = "Transaction-uid"  #: where the Transaction UID of an update is looked for
    items: dict[str, Dataset] = field(default_factory=dict)
    holders: dict[str, str] = field(default_factory=dict)  #: Transaction UID by workitem
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    ignores_keys: bool = False  #: it ignores the matching keys of a search
    #: status instead of the answer of the nth request; 0: end the connection after the work
    fault: Callable[[int, str, str], int | None] = lambda *_: None

    def add(self, *items: Dataset) -> None:
        self.items |= {str(item.SOPInstanceUID): item for item in items}

    def state(self, uid: str) -> str:
        return str(self.items[uid].ProcedureStepState)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        names = parts.path.strip("/").split("/")
        sent = Dataset.from_json(json.loads(body)[0]) if body else Dataset()
        if method == "GET" and len(names) == 1:
            return self._search(query)
        uid = names[1]
        if uid not in self.items:
            return 404, None
        if method == "GET":
            return 200, [self.items[uid].to_json_dict()]
        if method == "POST" and len(names) == 2:
            return self._update(uid, sent, query), None
        if self.form == "body" and names[2:] != ["state", "REBRAIN"]:
            return 404, None  # as dcm4chee to 5.35.0: the requester is part of the path
        return self._change_state(uid, sent), None

    def _search(self, query: dict[str, str]) -> tuple[int, Any]:
        def fits(one: Dataset) -> bool:
            if self.ignores_keys:
                return True
            station = query.get("ScheduledStationNameCodeSequence.CodeValue")
            return (
                one.ProcedureStepState == query["ProcedureStepState"]
                and one.ScheduledWorkitemCodeSequence[0].CodeValue
                == query["ScheduledWorkitemCodeSequence.CodeValue"]
                and station in (None, one.ScheduledStationNameCodeSequence[0].CodeValue)
            )

        found = [one.to_json_dict() for one in self.items.values() if fits(one)]
        page = found[int(query["offset"]) :][: int(query["limit"])]
        return (200, page) if page else (204, None)

    def _update(self, uid: str, sent: Dataset, query: dict[str, str]) -> int:
        given = sent.get("TransactionUID") if self.form == "body" else query.get(self.form)
        if self.state(uid) != "IN PROGRESS" or given != self.holders[uid]:
            return 409
        self.items[uid].update(sent)
        return 200

    def _change_state(self, uid: str, sent: Dataset) -> int:
        now, wanted = self.state(uid), sent.ProcedureStepState
        if wanted == "IN PROGRESS":
            if now != "SCHEDULED":
                return 409
            self.holders[uid] = str(sent.TransactionUID)
        else:
            is_holder = now != "SCHEDULED" and sent.TransactionUID == self.holders[uid]
            can_end = now not in FINAL and self._meets_final_state(uid, wanted)
            if not is_holder or (now != wanted and not can_end):
                return 409
        self.items[uid].ProcedureStepState = wanted
        return 200

    def _meets_final_state(self, uid: str, wanted: str) -> bool:
        """Whether what PS3.4 table CC.2.5-3 requires of a final state is there."""
        item = self.items[uid]
        if wanted == "CANCELED":
            (progress,) = item.get("ProcedureStepProgressInformationSequence") or [Dataset()]
            return "ProcedureStepCancellationDateTime" in progress
        (performed,) = item.get("UnifiedProcedureStepPerformedProcedureSequence") or [Dataset()]
        return all(
            performed.get(keyword)
            for keyword in (
                "PerformedStationNameCodeSequence", "PerformedWorkitemCodeSequence",
                "PerformedProcedureStepStartDateTime", "PerformedProcedureStepEndDateTime",
            )
        ) and "OutputInformationSequence" in performed  # fmt: skip


@contextmanager
def a_manager(form: str = "Transaction-uid") -> Iterator[tuple[Manager, str]]:
    manager = Manager(form)

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            manager.requests.append((self.command, self.path))
            manager.tokens.append(self.headers.get("Authorization"))
            fault = manager.fault(len(manager.requests), self.command, self.path)
            status, answer = (
                (fault, None) if fault else manager.answer(self.command, self.path, body)
            )
            if fault == 0:
                return
            content = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = respond  # noqa: N815 - names of http.server

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield manager, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
