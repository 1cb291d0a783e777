"""Where dcmtk's programs are."""

import os
import shutil
import sysconfig


def program(name: str) -> str | None:
    """Path of a program of dcmtk; pynetdicom installs others of the same names beside Python."""
    beside_python = sysconfig.get_path("scripts")
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which(
        name, path=os.pathsep.join(each for each in folders if each != beside_python)
    )
