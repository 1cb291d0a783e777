"""A report as PDF: its text is there, nothing is loaded, and a missing library is said."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import subprocess
import sys
import zlib

import pytest
from typer.testing import CliRunner

from rebrain_node import cli
from rebrain_node.errors import SettingsError
from rebrain_node.report.markup import Html, document
from rebrain_node.report.pdf import pdf_writer
from rebrain_node.report.series_page import series_page
from tests.support.injections import INJECTIONS
from tests.unit.report.test_pages import facts

installed = pytest.mark.skipif(
    importlib.util.find_spec("weasyprint") is None or shutil.which("pdftotext") is None,
    reason="weasyprint (extra pdf) or pdftotext (poppler-utils) is not installed",
)


def text_of(pdf: bytes, folder) -> str:
    path = folder / "page.pdf"
    path.write_bytes(pdf)
    return subprocess.run(
        ["pdftotext", "-layout", path, "-"], capture_output=True, text=True, check=True
    ).stdout


def test_a_missing_library_is_said_with_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(SettingsError, match="install the extra `pdf`"):
        pdf_writer()
    arguments = ["audit", "report", "--out", str(tmp_path / "a.html"), "--pdf", "a.pdf"]
    result = CliRunner().invoke(cli.program, arguments)
    assert isinstance(result.exception, SettingsError)
    assert not (tmp_path / "a.html").exists()


def unpacked(pdf: bytes) -> bytes:
    """The file with what its compressed streams hold behind it."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    opened = []
    for each in streams:
        with contextlib.suppress(zlib.error):
            opened.append(zlib.decompress(each))
    return b"\n".join([pdf, *opened])


def test_what_is_hidden_in_a_compressed_stream_is_seen():
    packed = zlib.compress(b"<< /URI (x) >>")
    assert b"/URI" in unpacked(b"1 0 obj\nstream\n" + packed + b"\nendstream")


@installed
def test_a_report_as_pdf_holds_the_text_of_the_page(tmp_path):
    text = text_of(pdf_writer()(series_page(facts())), tmp_path)
    for words in ("not for diagnosis", "demo 1.2.0", "NOT TO BE TRUSTED"):
        assert words in text


@installed
def test_nothing_is_read_for_a_pdf(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden words")
    links = f'<a rel="attachment" href="{secret.as_uri()}">x</a><img src="{secret.as_uri()}">'
    style = f'<link rel="stylesheet" href="{secret.as_uri()}"><object data="{secret.as_uri()}">'
    pdf = pdf_writer()(document("title", Html(links + style)))
    assert b"/EmbeddedFile" not in unpacked(pdf)
    assert "hidden" not in text_of(pdf, tmp_path)


@installed
def test_no_text_in_any_field_is_more_than_text_in_a_pdf():
    texts = [each for each in INJECTIONS if len(each) < 100]
    pdf = pdf_writer()(series_page(facts("*", " ".join(texts))))
    for sign in (b"/JavaScript", b"/EmbeddedFile", b"/Launch", b"/URI"):
        assert sign not in unpacked(pdf)
