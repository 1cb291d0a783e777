"""Probes and metrics over HTTP, on this machine only: `/healthz`, `/readyz`, `/metrics`.

Runs in a thread of the receiver, so that no answer means that the receiver hangs. No answer holds
a patient, a UID or a path.
"""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from rebrain_node.app.health import (
    HealthReport,
    database_check,
    disk_check,
    health_of,
    processes_check,
    starting_check,
    storage_use,
)
from rebrain_node.app.presence import node_processes
from rebrain_node.domain.stop_rules import STOP_RULES
from rebrain_node.errors import SettingsError, StoreUnavailableError

if TYPE_CHECKING:
    from rebrain_node.app.compose import State
    from rebrain_node.settings import Settings

ADDRESS: Final = "127.0.0.1"
#: metrics are looked up again after this, however often they are asked for, s
_FRESH_S: Final = 5.0
#: stored bytes are summed again after this, because that reads every row, s
_STORAGE_FRESH_S: Final = 300.0
_REQUEST_S: Final = 10.0


class HealthAnswer(NamedTuple):
    """Status, media type and body of an HTTP response."""

    status: int
    media_type: str
    body: bytes


@contextmanager
def health_server(settings: Settings, state: State) -> Iterator[None]:
    """Answer probes on `health.port` while the block runs.

    Raises
    ------
    SettingsError
        The port is taken or not allowed.
    """
    port = settings.health.port or 0
    pages = HealthHandler(settings, state)
    handler = type("_Handler", (_Handler,), {"pages": pages})
    try:
        server = ThreadingHTTPServer((ADDRESS, port), handler)
    except OSError as error:
        what = (
            "another program has the port; stop it, or set another health.port"
            if error.errno == errno.EADDRINUSE
            else f"{error.strerror}; set another health.port"
        )
        raise SettingsError(
            f"the health endpoint cannot listen on {ADDRESS}, port {port}: {what}"
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True, name="health")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class HealthHandler:
    """What is answered for each path."""

    def __init__(self, settings: Settings, state: State) -> None:
        self._settings = settings
        self._state = state
        self._registry = CollectorRegistry()
        self._registry.register(_NodeCollector(self._report))
        self._lock = threading.Lock()
        self._known: tuple[float, HealthReport | None] = (-_FRESH_S, None)
        self._measured: tuple[float, Mapping[str, Any]] = (-_STORAGE_FRESH_S, {})

    def answer(self, path: str) -> HealthAnswer:
        """Answer a request; 200 for yes, 503 for no, 404 for what there is not."""
        node = node_processes(self._settings.storage.own_folder)
        match path.partition("?")[0]:
            case "/healthz":
                checks = [processes_check(node)]
            case "/readyz":
                checks = [
                    processes_check(node),
                    starting_check(node),
                    disk_check(self._settings, self._state.folder),
                    database_check(self._state),
                ]
            case "/metrics":
                return HealthAnswer(200, CONTENT_TYPE_LATEST, generate_latest(self._registry))
            case _:
                return HealthAnswer(404, "text/plain", b"see /healthz, /readyz and /metrics\n")
        lines = [f"{each.name}: {_shown(each.name, each.sentence)}\n" for each in checks]
        fit = all(each.fit for each in checks)
        return HealthAnswer(200 if fit else 503, "text/plain", "".join(lines).encode())

    def _report(self) -> HealthReport | None:
        """The report, not older than `_FRESH_S`; None while the database cannot be read."""
        with self._lock:
            at, report = self._known
            if time.monotonic() - at >= _FRESH_S:
                try:
                    storage = self._storage()
                    report = health_of(self._settings, self._state, storage=storage)
                except StoreUnavailableError:
                    report = None
                self._known = time.monotonic(), report
            return report

    def _storage(self) -> Mapping[str, Any]:
        """What is stored, not older than `_STORAGE_FRESH_S`; what is free now."""
        at, storage = self._measured
        if time.monotonic() - at >= _STORAGE_FRESH_S:
            storage = storage_use(self._settings, self._state)
            self._measured = time.monotonic(), storage
        return {**storage, "free_bytes": shutil.disk_usage(self._state.folder).free}


def _shown(name: str, sentence: str) -> str:
    """A sentence as the endpoint shows it: an error of the database may name its place."""
    if name == "database" and sentence:
        return "does not take a write; see the node's log"
    return sentence or "ok"


class _Handler(BaseHTTPRequestHandler):
    pages: HealthHandler
    timeout = _REQUEST_S
    server_version, sys_version = "rebrain-node", ""

    def do_GET(self) -> None:
        answer = self.pages.answer(self.path)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.media_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        """Log nothing: probes come every few seconds."""


class _NodeCollector(Collector):
    """The report as metrics; a scrape without a database has `rebrain_database_writable` 0."""

    def __init__(self, report: Callable[[], HealthReport | None]) -> None:
        self._report = report

    def describe(self) -> Iterator[Metric]:
        """Name nothing beforehand, so that registering reads no database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        report = self._report()
        writable = report is not None and _fit(report, "database")
        yield _gauge("database_writable", "Whether the database takes a write", float(writable))
        if report is not None:
            yield from _process_metrics(report)
            yield from _storage_metrics(report)
            yield from _series_metrics(report)
            yield from _delivery_metrics(report)
            yield from _bundle_metrics(report)
            yield from _queue_metrics(report)
            yield _labelled(
                "certificate_end_timestamp_seconds",
                "When the certificates or the revocation list of a file end",
                "file",
                {name: end.timestamp() for name, end in report.certificates.items()},
            )
            yield _labelled(
                "check_fit",
                "Whether what a check looks at is well",
                "check",
                {each.name: float(each.fit) for each in report.checks},
            )


def _fit(report: HealthReport, name: str) -> bool:
    return all(each.fit for each in report.checks if each.name == name)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"rebrain_{name}", text, value=value)


def _labelled(name: str, text: str, label: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(f"rebrain_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _process_metrics(report: HealthReport) -> Iterator[Metric]:
    processes = {each["role"]: each for each in report.node["processes"]}
    silent_s = report.node.get("supervisor_silent_s") or 0.0
    yield _gauge("supervisor_silent_seconds", "Since the supervisor reported", silent_s)
    yield _labelled(
        "process_up",
        "Whether a process is ready and gives signs of life",
        "role",
        {role: float(each["state"] == "ready") for role, each in processes.items()},
    )
    yield _labelled(
        "process_silent_seconds",
        "Since the last sign of life of a process",
        "role",
        {role: each["silent_s"] for role, each in processes.items()},
    )
    restarts = CounterMetricFamily(
        "rebrain_process_restarts", "Restarts since the supervisor started", labels=["role"]
    )
    for role, each in processes.items():
        restarts.add_metric([role], each["restarts"])
    yield restarts


def _storage_metrics(report: HealthReport) -> Iterator[Metric]:
    storage = report.storage
    yield _gauge("disk_free_bytes", "Free bytes of the disk", storage["free_bytes"])
    yield _gauge("received_bytes", "Bytes of received instances", storage["received_bytes"])
    yield _gauge("derived_bytes", "Bytes of derived objects", storage["derived_bytes"])
    days = storage["days_left"]
    value = float("inf") if days is None else days
    yield _gauge("disk_days_left", "Days until no new study is judged, as received lately", value)


def _series_metrics(report: HealthReport) -> Iterator[Metric]:
    counts = report.counts
    yield _gauge("instances", "Instances held", counts.instances)
    yield _gauge("series_pending", "Series for which something is to be done", counts.pending)
    yield _gauge("series_disputed", "Series that wait for a decision", counts.disputed)
    yield _gauge("series_failed_last_day", "Series that failed lately", report.failed_lately)
    yield _gauge("late", "Series and deliveries that wait too long", report.backlog.late)
    yield _labelled(
        "series",
        "Series by state",
        "state",
        {str(state): count for state, count in counts.by_state.items()},
    )
    if report.last_result is not None:
        yield _gauge(
            "last_result_timestamp_seconds",
            "When a series was last published",
            report.last_result.timestamp(),
        )


def _delivery_metrics(report: HealthReport) -> Iterator[Metric]:
    each = report.backlog.destinations
    waiting = {name: float(counts.waiting) for name, counts in each.items()}
    refused = {name: float(counts.refused) for name, counts in each.items()}
    text = "Sets that a destination has not taken yet"
    yield _labelled("deliveries_waiting", text, "destination", waiting)
    yield _labelled("deliveries_refused", "Sets that need the operator", "destination", refused)
    yield _gauge(
        "notifications_refused",
        "Notifications that need the operator",
        report.backlog.notifications_refused,
    )
    yield _gauge(
        "workitems_refused",
        "Workitems of which a workflow manager refuses a request",
        report.backlog.workitems_refused,
    )
    yield _labelled(
        "destination_paused",
        "Destinations to which an operator has paused delivery",
        "destination",
        dict.fromkeys(report.paused, 1.0),
    )
    stopped = {each.rule for each in report.stops}
    yield _labelled(
        "delivery_stopped",
        "Whether a rule, or the operator, has stopped every delivery",
        "rule",
        {rule: float(rule in stopped) for rule in STOP_RULES},
    )
    shadow = float(report.shadow["active"])
    yield _gauge("shadow_mode", "Whether results stay in the node (shadow mode)", shadow)
    yield _gauge("results_kept", "Results that shadow mode has kept", report.backlog.kept)


def _queue_metrics(report: HealthReport) -> Iterator[Metric]:
    rows = {each.reader: float(each.rows) for each in report.audit_queue}
    failures = {each.reader: float(each.failures) for each in report.audit_queue}
    text = "Events of which a receiver of audit messages or notices has not been told"
    yield _labelled("audit_queue_events", text, "reader", rows)
    yield _labelled("audit_queue_failures", "Attempts that failed in a row", "reader", failures)


def _bundle_metrics(report: HealthReport) -> Iterator[Metric]:
    fit = report.bundle is not None and _fit(report, "bundle") and _fit(report, "engine")
    yield _gauge("bundle_verified", "Whether the bundle passed its last check", float(fit))
    if report.bundle is not None:
        names = ("name", "version", "digest", "signed_by", "engine")
        values = {name: str(report.bundle[name] or "none") for name in names}
        yield InfoMetricFamily("rebrain_bundle", "The bundle in force", value=values)
