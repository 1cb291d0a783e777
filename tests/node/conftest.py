"""Fixtures of the tests of the whole node."""

import pytest

from tests.support import phantoms
from tests.support.quick_node import quick_study, write_quick_bundle


@pytest.fixture(scope="session")
def quick_bundle(tmp_path_factory):
    """The shipped network, few slices."""
    return write_quick_bundle(tmp_path_factory.mktemp("bundle") / "quick")


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory):
    """A small head CT that the node takes, as files."""
    folder = tmp_path_factory.mktemp("study")
    phantoms.write(quick_study(), folder)
    return folder
