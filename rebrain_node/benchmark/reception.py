"""Reception by the node, Orthanc and dcmtk's storescp, each sent the same by storescu."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from rebrain_node.benchmark import dcmtk
from rebrain_node.benchmark.row import BenchmarkRow, Progress, Rows
from rebrain_node.demonstration.running_node import AE_TITLE, free_port, running_node

#: of the spec: 1.5 x Orthanc, though the node is durable before it answers
WANTED_OVER_ORTHANC: Final = 1.5
_SENDERS: Final = (1, 4)
_PIXELS: Final = 512
_START_S: Final = 30.0
#: dcmtk waits for the peer's acknowledgement otherwise (Nagle's algorithm)
_ENVIRONMENT: Final = {**os.environ, "TCP_NODELAY": "1"}


def measure_reception(folder: Path, count: int, rounds: int, progress: Progress) -> Rows:
    """Send `count` CT instances of 0.53 MB over one association and over four, in turns.

    Parameters
    ----------
    folder : Path
        Empty; the peers keep there what they receive.
    """
    sender = dcmtk.program("storescu")
    if sender is None:
        return [_skipped("Orthanc", "dcmtk is not installed (Debian package dcmtk)")]
    rates: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        node = stack.enter_context(running_node(folder, "PACS", free_port()))
        ports = {AE_TITLE: node.address.port}
        if orthanc := shutil.which("Orthanc"):
            ports["ORTHANC"] = stack.enter_context(orthanc_running(orthanc, folder / "orthanc"))
        if storescp := dcmtk.program("storescp"):
            ports["STORESCP"] = stack.enter_context(storescp_running(storescp, folder / "storescp"))
        for turn in range(rounds):
            for senders in _SENDERS:
                shares = study_files(folder / f"study-{turn}-{senders}", count, senders)
                for title, port in ports.items():
                    progress(f"reception, {senders} senders, {title}")
                    found = send_rate(sender, port, title, shares)
                    rates.setdefault((title, senders), []).append(found)
    median = {key: statistics.median(found) for key, found in rates.items()}
    return _rows(median)


def _rows(median: dict[tuple[str, int], float]) -> Rows:
    rows = []
    for senders in _SENDERS:
        what, ours = _what(senders), median[AE_TITLE, senders]
        for title, peer, wanted, package in (
            ("ORTHANC", "Orthanc", WANTED_OVER_ORTHANC, "orthanc"),
            ("STORESCP", "dcmtk storescp, syncs nothing", None, "dcmtk"),
        ):
            theirs = median.get((title, senders))
            skipped = "" if theirs else f"{peer} is not installed (Debian package {package})"
            rows.append(_row(what, ours, peer, theirs, wanted, skipped))
    one, four = (median[AE_TITLE, senders] for senders in _SENDERS)
    return [*rows, _row(_what(4), four, "the node, 1 sender", one, 1.0, "")]


def _what(senders: int) -> str:
    return f"reception, {senders} sender{'s' if senders > 1 else ''}"


def _row(
    what: str, ours: float, peer: str, theirs: float | None, wanted: float | None, skipped: str
) -> BenchmarkRow:
    return BenchmarkRow(
        what=what, unit="instances/s", ours=ours, peer=peer, theirs=theirs, wanted=wanted,
        better="larger", skipped=skipped,
    )  # fmt: skip


def _skipped(peer: str, why: str) -> BenchmarkRow:
    return _row("reception", 0.0, peer, None, WANTED_OVER_ORTHANC, why)


def study_files(folder: Path, count: int, senders: int) -> list[list[str]]:
    """Write a new series of noisy slices; their paths, shared out among the senders."""
    folder.mkdir()
    random, paths = np.random.default_rng(1), []
    study, series = (generate_uid(prefix=None) for _ in range(2))
    for number in range(1, count + 1):
        one = Dataset()
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, f"{series}.{number}"
        one.StudyInstanceUID, one.SeriesInstanceUID = study, series
        one.PatientID, one.PatientName, one.Modality = "BENCHMARK", "BENCHMARK", "CT"
        one.InstanceNumber, one.SamplesPerPixel = number, 1
        one.PhotometricInterpretation, one.PixelRepresentation = "MONOCHROME2", 0
        one.Rows = one.Columns = _PIXELS
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 12, 11
        pixels = random.integers(0, 4096, _PIXELS * _PIXELS, dtype=np.uint16)
        one.add_new("PixelData", "OW", pixels.tobytes())
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{number:04d}.dcm"
        one.save_as(path, enforce_file_format=True)
        paths.append(str(path))
    return [paths[n::senders] for n in range(senders)]


def send_rate(sender: str, port: int, title: str, shares: Sequence[Sequence[str]]) -> float:
    """Return the instances a second that a peer takes of one storescu a share.

    Raises
    ------
    OSError
        One could not send.
    """
    begun = time.perf_counter()
    runs = [
        subprocess.Popen(  # noqa: S603 - dcmtk's program, with paths of ours
            [sender, "-aet", "PACS", "-aec", title, "127.0.0.1", str(port), *share],
            env=_ENVIRONMENT,
        )
        for share in shares
    ]
    codes = [run.wait() for run in runs]
    if any(codes):
        raise OSError(f"storescu could not send to {title} on port {port}")
    return sum(map(len, shares)) / (time.perf_counter() - begun)


@contextmanager
def orthanc_running(program: str, folder: Path) -> Iterator[int]:
    """Run an Orthanc over a new folder; yield its port."""
    folder.mkdir()
    port = free_port()
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": free_port(),
        "RemoteAccessAllowed": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    with _running([program, str(folder / "orthanc.json")], port):
        yield port


@contextmanager
def storescp_running(program: str, folder: Path) -> Iterator[int]:
    """Run dcmtk's storescp over a new folder; yield its port."""
    folder.mkdir()
    port = free_port()
    with _running([program, "--fork", "-aet", "STORESCP", "-od", str(folder), str(port)], port):
        yield port


@contextmanager
def _running(command: Sequence[str], port: int) -> Iterator[None]:
    """Run a peer and wait until it answers C-ECHO.

    Raises
    ------
    OSError
        It does not answer in time.
    """
    quiet = subprocess.DEVNULL
    peer = subprocess.Popen(command, env=_ENVIRONMENT, stdout=quiet, stderr=quiet)  # noqa: S603 - a program of the system
    try:
        deadline = time.monotonic() + _START_S
        echo = [dcmtk.program("echoscu") or "echoscu", "127.0.0.1", str(port)]
        while subprocess.run(echo, stderr=quiet, check=False).returncode:  # noqa: S603 - dcmtk's program
            if time.monotonic() > deadline:
                raise OSError(f"{command[0]} does not answer on port {port} within {_START_S:g} s")
            time.sleep(0.1)
        yield
    finally:
        peer.terminate()
        peer.wait()
