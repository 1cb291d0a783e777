"""Where dcmtk's programs are."""

from __future__ import annotations

import os
import shutil
import subprocess


def program(name: str) -> str | None:
    """Path of a program of dcmtk, None where it is not installed.

    pynetdicom installs others of the same names beside Python, first on the path of an
    environment that is active.
    """
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        found = shutil.which(name, path=folder)
        if found is not None and "$dcmtk" in _version(found):
            return found
    return None


def _version(path: str) -> str:
    command = [path, "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - a program on the path
