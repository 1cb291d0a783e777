"""How fast the node takes a study durably: python -m tests.benchmarks.receive.

A node of its own (receiver process, SQLite with full syncs) gets 300 CT instances of 0.5 MB over
one association and over four, as fast as each is acknowledged; ``--port`` measures another
archive that listens on this machine instead.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, _config
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context

from tests.support.data_sets import ct, encode, us
from tests.support.dicom_peers import pause_reactor

_config.LOG_HANDLER_LEVEL = "none"


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


def measure(port: int, called: str, count: int, associations: int) -> dict[str, float]:
    """Seconds and rate of one study of ``count`` slices over so many associations at once."""
    instances = slices(count)
    answers: list[float] = []
    threads = [
        threading.Thread(target=send, args=(port, called, instances[n::associations], answers))
        for n in range(associations)
    ]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    return {
        "associations": associations,
        "instances": len(answers),
        "seconds": round(seconds, 2),
        "instances_per_s": round(len(answers) / seconds, 1),
        "median_ms": round(1000 * statistics.median(answers), 2),
        "p99_ms": round(1000 * sorted(answers)[int(0.99 * (len(answers) - 1))], 2),
    }


def node(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a receiver process over a folder; the process and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.receiver_process", str(folder)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def cpu_s(process: subprocess.Popen[bytes] | None) -> float:
    """Processor seconds the node has used, user and system."""
    if process is None:
        return 0.0
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--port", type=int, help="an archive that listens already")
    parser.add_argument("--called", default="REBRAIN")
    parser.add_argument("--folder", type=Path, help="where the node keeps it; default: temporary")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        process, port = (None, options.port) if options.port else node(Path(folder))
        try:
            results = []
            for associations in (1, 4):
                before = cpu_s(process)
                result = measure(port, options.called, options.count, associations)
                if process is not None:
                    spent = 1000 * (cpu_s(process) - before) / options.count
                    result["node_cpu_ms_per_instance"] = round(spent, 2)
                results.append(result)
        finally:
            if process is not None:
                os.kill(process.pid, signal.SIGTERM)
                process.wait()
                process.stdout.close()
    sys.stdout.write(json.dumps({"cores": os.cpu_count(), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
