#!/usr/bin/env bash
# faiss and SimpleITK in one Python process: the order of the two imports decides whether faiss works.
#
# Expected: the order of two imports does not matter.
# Seen (faiss-cpu 1.15.1, SimpleITK 2.5.7, numpy 2.4.6, CPython 3.11.7, Linux): with
# `import faiss, SimpleITK` both `faiss.Kmeans(...).train` and `faiss.serialize_index` raise an
# AssertionError without a message; with `import SimpleITK, faiss` both work. Both are SWIG
# modules that wrap std::vector; the module loaded last seems to take over the shared type table,
# so the vectors of faiss come back as SimpleITK's proxies.
# What to do: a program that needs both imports SimpleITK first, or keeps them in two processes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q faiss-cpu==1.15.1 SimpleITK==2.5.7 numpy==2.4.6
cat >"$folder/both.py" <<'PYTHON'
import importlib
import sys

import numpy as np

for name in sys.argv[1:]:
    importlib.import_module(name)
import faiss

vectors = np.random.default_rng(0).random((200, 8), dtype=np.float32)
index = faiss.IndexFlatL2(8)
index.add(vectors)
for what, call in (
    ("serialize_index", lambda: faiss.serialize_index(index)),
    ("Kmeans.train", lambda: faiss.Kmeans(8, 4).train(vectors)),
):
    try:
        call()
        print(what, "works")
    except AssertionError:
        print(what, "raises AssertionError")
PYTHON
first=$("$folder/venv/bin/python" "$folder/both.py" faiss SimpleITK)
second=$("$folder/venv/bin/python" "$folder/both.py" SimpleITK faiss)
printf 'faiss, then SimpleITK:\n%s\nSimpleITK, then faiss:\n%s\n' "$first" "$second"
[ "$first" = $'serialize_index raises AssertionError\nKmeans.train raises AssertionError' ]
[ "$second" = $'serialize_index works\nKmeans.train works' ]
echo "as described"
