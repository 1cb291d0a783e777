"""Frames are decoded in another process, within limits; what breaks there is an error here."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from rebrain_node.errors import DecodingError, SeriesRejectedError
from rebrain_node.instance import codecs, decoding
from rebrain_node.instance.decoders import codestream_shape
from rebrain_node.instance.decoding import (
    CompressedFrame,
    DecodingLimits,
    DecodingProcess,
)
from rebrain_node.instance.pixels import hounsfield
from tests.support.decoding_children import JPEG_LS, process
from tests.support.phantoms import head_ct

IMAGE = (np.arange(512 * 512) % 4000).astype(np.uint16).reshape(512, 512)
ENCODED = bytes(imagecodecs.jpegls_encode(IMAGE))


def description(**changes) -> CompressedFrame:
    values = {"rows": 512, "columns": 512, "samples": 1, "bits_allocated": 16}
    return CompressedFrame(**({"transfer_syntax_uid": JPEG_LS} | values | changes))


def test_a_module_of_the_current_folder_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    (tmp_path / "pydicom.py").write_text("raise SystemExit(9)")
    (tmp_path / "rebrain_node.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    one = DecodingProcess(DecodingLimits())
    try:
        assert one.decode(description(), ENCODED)
    finally:
        one.close()


@pytest.fixture
def whole():
    one = process("nothing")
    yield one
    one.close()


@pytest.fixture
def faulty():
    made: list[DecodingProcess] = []

    def make(what: str, **limits) -> DecodingProcess:
        made.append(process(what, **limits))
        return made[-1]

    yield make
    for each in made:
        each.close()


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_one_process_decodes_a_whole_series_and_is_started_with_the_first_frame(whole):
    assert whole.pid is None
    decoded = [whole.decode(description(), ENCODED) for _ in range(5)]
    first = whole.pid
    assert decoded == 5 * [IMAGE.tobytes()]
    assert whole.decode(description(), ENCODED) == IMAGE.tobytes()
    assert whole.pid == first != os.getpid()


@pytest.mark.hazard("H12")
def test_a_decoder_that_hangs_is_ended_and_the_next_frame_is_decoded(faulty, whole):
    hanging = faulty("sleeps", time_s=0.5)
    small = bytes(imagecodecs.jpegls_encode(IMAGE[:48, :40].copy()))
    assert hanging.decode(description(rows=48, columns=40), small) == IMAGE[:48, :40].tobytes()
    pid = hanging.pid
    begun = time.monotonic()
    with pytest.raises(DecodingError, match=r"within decoding.time_s, 0.5 s"):
        hanging.decode(description(), ENCODED)
    assert time.monotonic() - begun < 10
    assert not runs(pid)
    assert hanging.decode(description(rows=48, columns=40), small) == IMAGE[:48, :40].tobytes()


@pytest.mark.hazard("H12")
def test_a_decoder_that_takes_too_much_memory_is_refused_it(faulty):
    limits = {"memory_bytes": 16 << 20}
    with pytest.raises(DecodingError, match=r"more than decoding.memory_bytes, 16777216"):
        faulty("allocates", **limits).decode(description(), ENCODED)


@pytest.mark.hazard("H12")
@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("dies", r"the decoder ended \(signal 11\)"),
        ("exits", r"the decoder ended \(exit code 3\)"),
        ("raises", "division"),
        ("writes", "File too large"),
        ("never starts", r"does not start \(exit code 5\)"),
    ],
)
def test_a_decoder_that_breaks_is_an_error_with_a_sentence(faulty, what, sentence):
    with pytest.raises(DecodingError, match=sentence):
        faulty(what).decode(description(), ENCODED)


def test_a_frame_beyond_the_limit_of_size_starts_nothing(faulty):
    tight = faulty("nothing", maximum_frame_bytes=1024)
    with pytest.raises(DecodingError, match=r"524288 bytes .* decoding.maximum_frame_bytes, 1024"):
        tight.decode(description(), ENCODED[:512])
    with pytest.raises(DecodingError, match=r"codestream of \d+ bytes"):
        tight.decode(description(rows=2, columns=2), ENCODED)
    assert tight.pid is None


def test_a_codestream_with_more_samples_than_described_is_not_decoded(whole):
    colour = np.zeros((16, 16, 3), np.uint8)
    frame = description(rows=16, columns=16, bits_allocated=8)
    with pytest.raises(DecodingError, match="16 x 16 x 3 pixels in an image of 16 x 16 pixels"):
        whole.decode(frame, bytes(imagecodecs.jpegls_encode(colour)))


def test_a_decoder_that_gives_wrong_pixels_is_not_offered_and_not_used(faulty):
    wrong = faulty("is wrong")
    assert JPEG_LS not in wrong.working()
    assert "1.2.840.10008.1.2.4.70" in wrong.working()
    with pytest.raises(DecodingError, match=r"4\.80 failed its test"):
        wrong.decode(description(), ENCODED)


def test_a_process_that_was_only_asked_for_its_decoders_is_ended(faulty):
    asked = faulty("nothing")
    assert len(asked.working()) == 13
    assert asked.pid is None


def test_an_idle_process_is_ended(faulty):
    idle = faulty("nothing", idle_s=0.1)
    idle.decode(description(), ENCODED)
    pid = idle.pid
    deadline = time.monotonic() + 20
    while pid is not None and runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert idle.pid is None
    assert idle.decode(description(), ENCODED) == IMAGE.tobytes()


def test_the_process_ends_with_the_one_that_started_it():
    program = (
        "import os; from tests.support.decoding_children import process;"
        "from tests.unit.instance.test_decoding import ENCODED, description;"
        "one = process('nothing'); one.decode(description(), ENCODED);"
        "print(one.pid, flush=True); os._exit(0)"
    )
    started = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    deadline = time.monotonic() + 20
    while runs(pid := int(started.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(pid)


@pytest.mark.hazard("H12")
def test_a_slice_beyond_a_limit_refuses_its_series_by_name():
    (instance,) = head_ct(slice_distances_mm=(0.0,), transfer_syntax=JPEG_LS)
    codecs.set_limits(DecodingLimits(maximum_frame_bytes=1024))
    try:
        with pytest.raises(SeriesRejectedError) as error:
            hounsfield(instance, None)
    finally:
        codecs.set_limits(DecodingLimits())
    (finding,) = error.value.findings
    assert finding.code == "PIXEL-DATA"
    assert "decoding.maximum_frame_bytes, 1024" in finding.sentence


def test_what_asks_for_pixels_loads_no_decoder():
    program = "import sys, rebrain_node.instance.pixels; print('imagecodecs' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert result.stdout == b"False\n"


def test_nothing_is_pickled_between_the_processes():
    for module in (decoding, codecs):
        tree = ast.parse(Path(module.__file__).read_text("utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                 for alias in node.names}  # fmt: skip
        assert not names & {"pickle", "multiprocessing", "marshal"}


@pytest.mark.parametrize(("rows", "columns"), [(48, 40), (512, 512), (300, 200), (9, 18), (64, 80)])
@pytest.mark.parametrize("in_a_container", [True, False])
def test_the_size_of_a_jpeg_xl_codestream_is_read_from_its_header(rows, columns, in_a_container):
    image = np.zeros((rows, columns), np.uint16)
    encoded = imagecodecs.jpegxl_encode(
        image, lossless=True, bitspersample=12, usecontainer=in_a_container
    )
    assert codestream_shape(bytes(encoded)) == (rows, columns, None)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_jpeg_xl_gives_the_values_back_whatever_their_bits(whole, bits):
    image = (IMAGE.astype(np.uint32) * 37 % (1 << bits)).astype(np.uint16)
    encoded = bytes(imagecodecs.jpegxl_encode(image, lossless=True, bitspersample=bits))
    frame = description(transfer_syntax_uid="1.2.840.10008.1.2.4.110")
    assert whole.decode(frame, encoded) == image.tobytes()
