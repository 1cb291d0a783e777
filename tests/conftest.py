"""What all tests share: real data where they are, strict writing of DICOM."""

from __future__ import annotations

import os
from pathlib import Path

import pydicom.config
import pytest

pytest_plugins = ["tests.support.postgres"]

ROOT = Path(__file__).resolve().parent.parent
#: folders with the longest files
SLOWEST_FIRST = ("node", "training", "faults", "repository", "integration", "field")
if "PYTEST_XDIST_WORKER" in os.environ:
    # before torch is loaded: threads of several workers would only wait for each other's cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def shared_data_folder() -> Path | None:
    """Return the folder of real images: ``REBRAIN_DATA`` or ``../shared/data``, if it exists."""
    folder = Path(os.environ.get("REBRAIN_DATA", ROOT.parent / "shared" / "data"))
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images; the test is skipped, visibly, where it is absent."""
    folder = shared_data_folder()
    if folder is None:
        pytest.skip("no real images: ../shared/data is absent and REBRAIN_DATA is not set")
    return folder


def _rank(item: pytest.Item) -> int:
    """Return the place of the test's folder in `SLOWEST_FIRST`; other folders follow."""
    folder = item.path.relative_to(ROOT / "tests").parts[0]
    return SLOWEST_FIRST.index(folder) if folder in SLOWEST_FIRST else len(SLOWEST_FIRST)


def pytest_configure() -> None:
    """Refuse to write values outside their representation (PS3.5 6.2)."""
    pydicom.config.settings.writing_validation_mode = pydicom.config.RAISE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the heavier counts and what needs a GPU; put the slow folders first.

    With ``--dist loadfile`` a worker takes the next file when it is free: a long file that comes
    last would keep one core busy and leave the others idle.
    """
    items.sort(key=_rank)
    run_full = os.environ.get("REBRAIN_FULL") == "1"
    has_gpu = Path("/dev/nvidiactl").exists()
    for item in items:
        if item.get_closest_marker("gpu") and not has_gpu:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU on this machine"))
        if item.get_closest_marker("full") and not run_full:
            item.add_marker(pytest.mark.skip(reason="heavier counts: set REBRAIN_FULL=1"))
