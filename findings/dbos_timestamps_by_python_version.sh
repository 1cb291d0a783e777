#!/usr/bin/env bash
# DBOS on SQLite chooses the SQL of its timestamps by the version of Python, not of SQLite.
#
# Expected: a workflow engine that starts on SQLite with Python 3.11 starts with Python 3.12 and 3.13
# on the same machine.
# Seen (dbos 3.4.0 from PyPI, Python 3.12 or newer linked with SQLite 3.40.1, the SQLite of Debian 12):
# the tables are made with a default that only SQLite 3.42 and newer compute and older ones answer
# with NULL; the first start ends with `NOT NULL constraint failed:
# application_versions.version_timestamp`. Python 3.11 with the same SQLite starts.
# What to do: link Python with SQLite 3.42 or newer (a base image of Debian 13 has it), or stay with
# 3.11, or use PostgreSQL.
# Without such a Python on this machine nothing is shown: name one in PYTHON.
set -euo pipefail
python=${PYTHON:-}
for each in $python python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[23]*/bin/python3; do
    command -v "$each" >/dev/null || continue
    "$each" -c 'import sqlite3, sys; sys.exit(not (sys.version_info >= (3, 12) and sqlite3.sqlite_version_info < (3, 42)))' 2>/dev/null \
        && { python=$each; break; }
done
[ -n "$python" ] || { echo "no Python 3.12 or newer with SQLite before 3.42 here"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/env"
"$folder/env/bin/pip" install -q dbos==3.4.0 2>"$folder/pip" || { cat "$folder/pip" >&2; exit 1; }
cat >"$folder/try.py" <<'PYTHON'
"""Start DBOS on a new SQLite file, with no workflow at all."""

import logging
import sqlite3
import sys

from dbos import DBOS

logging.disable()
print(f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, dbos 3.4.0")
DBOS(config={"name": "try", "system_database_url": "sqlite:///progress.sqlite", "run_admin_server": False})
try:
    DBOS.launch()
except Exception as error:
    print(str(error).splitlines()[0])
    sys.exit("NOT NULL constraint failed: application_versions.version_timestamp" not in str(error))
finally:
    DBOS.destroy()
sys.exit("it started: no longer so")
PYTHON
cd "$folder"
env/bin/python try.py
