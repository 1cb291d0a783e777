"""Where dcmtk's programs are."""

import os
import shutil
import subprocess


def program(name: str) -> str | None:
    """Path of a program of dcmtk; pynetdicom installs others of the same names beside Python."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        found = shutil.which(name, path=folder)
        if found is not None and "$dcmtk" in _version(found):
            return found
    return None


def _version(path: str) -> str:
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
