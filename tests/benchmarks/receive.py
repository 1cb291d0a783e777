"""How fast the node takes a study durably, beside other archives.

Run: ``python -m tests.benchmarks.receive``. dcmtk's storescu sends the same CT instances (0.53 MB)
over one association and over four at once, to the node (receiver process, SQLite with full syncs),
to Orthanc and to dcmtk's storescp (which syncs nothing), in turns within one run, with
TCP_NODELAY=1. A last pass measures how long the node takes to acknowledge one instance. The table
holds medians over the rounds, and the load of the machine; the processor time of an instance
(user and system, of the process that receives) depends least on it. `rebrain-node benchmark
receive` sends the same to a whole node; this is its receiver alone, so that the time can be seen.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, _config
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context

from rebrain_node.benchmark import dcmtk
from rebrain_node.benchmark.reception import (
    orthanc_running,
    send_rate,
    storescp_running,
    study_files,
)
from rebrain_node.reception.listening import BEAT_S
from tests.support.data_sets import ct, encode, us
from tests.support.dicom_peers import pause_reactor

_config.LOG_HANDLER_LEVEL = "none"
SENDERS = (1, 4)


def slices(count: int) -> list[tuple[str, bytes]]:
    """SOP Instance UID and data set of noisy 512 x 512 slices of one series."""
    generator = np.random.default_rng(1)
    series = generate_uid(prefix=None)
    study = generate_uid(prefix=None)
    made = []
    for number in range(1, count + 1):
        uid = f"{series}.{number}"
        elements = ct(instance=uid, series=series, study=study)
        elements[0x00280010] = elements[0x00280011] = ("US", us(512))
        pixels = generator.integers(0, 4096, 512 * 512, dtype=np.uint16)
        elements[0x7FE00010] = ("OW", pixels.tobytes())
        made.append((uid, encode(elements)))
    return made


def send(port: int, called: str, instances: list[tuple[str, bytes]], answers: list[float]) -> None:
    """Send one after the other over one association; note seconds until each answer."""
    entity = AE(ae_title="PACS")
    context = build_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, contexts=[context], ae_title=called)
    if not association.is_established:
        raise SystemExit(f"no association with {called} on port {port}")
    pause = pause_reactor(association)
    association.dul._run_loop_delay = 0.0
    for number, (uid, content) in enumerate(instances):
        request = C_STORE()
        request.MessageID, request.Priority = number % 65535 + 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CTImageStorage, uid
        request.DataSet = BytesIO(content)
        begun = time.perf_counter()
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, answer = association.dimse.get_msg(block=True)
        if answer is None or answer.Status != 0:
            raise SystemExit(f"{uid}: {answer and hex(answer.Status)}")
        answers.append(time.perf_counter() - begun)
    association.release()
    pause.end()


def acknowledgements_ms(port: int, count: int, associations: int) -> tuple[float, float]:
    """Median and 99th percentile of the time until an instance is acknowledged by the node, ms."""
    instances = slices(count)
    answers: list[float] = []
    threads = [
        threading.Thread(target=send, args=(port, "REBRAIN", instances[n::associations], answers))
        for n in range(associations)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1000 * statistics.median(answers), 1000 * sorted(answers)[int(0.99 * (count - 1))]


def node(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a receiver process over a folder; the process and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.receiver_process", str(folder), str(BEAT_S)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def processor_s(process: psutil.Process) -> float:
    """Processor time that a process has taken, user and system, s."""
    times = process.cpu_times()
    return float(times.user + times.system)


def compare(
    folder: Path,
    programs: Mapping[str, str],
    count: int,
    rounds: int,
    progress: Callable[[str], object],
) -> str:
    """Measure all peers in turns; the table."""
    process, node_port = node(folder)
    rates: dict[tuple[str, int], list[float]] = {}
    taken_ms: dict[tuple[str, int], list[float]] = {}
    try:
        with (
            orthanc_running(programs["Orthanc"], folder / "orthanc") as orthanc,
            storescp_running(programs["storescp"], folder / "storescp") as storescp,
        ):
            peers = {"REBRAIN": node_port, "ORTHANC": orthanc, "STORESCP": storescp}
            own = psutil.Process()
            used = {
                "REBRAIN": psutil.Process(process.pid),
                "ORTHANC": next(p for p in own.children() if p.name() == "Orthanc"),
                "STORESCP": own,  # it forks: not measured
            }
            for turn in range(rounds):
                for senders in SENDERS:
                    shares = study_files(folder / f"study-{turn}-{senders}", count, senders)
                    for called, port in peers.items():
                        before = processor_s(used[called])
                        found = send_rate(programs["storescu"], port, called, shares)
                        spent_ms = 1000 * (processor_s(used[called]) - before) / count
                        rates.setdefault((called, senders), []).append(found)
                        taken_ms.setdefault((called, senders), []).append(spent_ms)
                        progress(f"{senders} senders, {called}: {found:.1f}/s\n")
            waits = {n: acknowledgements_ms(node_port, count, n) for n in SENDERS}
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    head = "senders      node   Orthanc  storescp  node/Orthanc  CPU node, Orthanc"
    lines = [f"{head}  ack median, p99 of the node"]
    for senders in SENDERS:
        ours, theirs, plain = (statistics.median(rates[each, senders]) for each in peers)
        cpu, their_cpu = (
            statistics.median(taken_ms[each, senders]) for each in ("REBRAIN", "ORTHANC")
        )
        middle, late = waits[senders]
        lines.append(
            f"{senders:7d} {ours:7.1f}/s {theirs:7.1f}/s {plain:7.1f}/s {ours / theirs:12.2f}  "
            f"{cpu:8.2f}, {their_cpu:.2f} ms  {middle:.1f} ms, {late:.1f} ms"
        )
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    lines.append(
        f"{count} instances, median of {rounds} rounds; {os.cpu_count()} cores, load {load}"
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where all keep it; default: temporary")
    options = parser.parse_args()
    programs = {}
    for name, package in (("Orthanc", "orthanc"), ("storescp", "dcmtk"), ("storescu", "dcmtk")):
        found = shutil.which(name) if name == "Orthanc" else dcmtk.program(name)
        if found is None:
            raise SystemExit(f"{name} is not installed (Debian package {package})")
        programs[name] = found
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        table = compare(Path(folder), programs, options.count, options.rounds, sys.stderr.write)
    sys.stdout.write(table)


if __name__ == "__main__":
    main()
