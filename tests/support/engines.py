"""The engines as parameters of a test: those that need a GPU carry the mark ``gpu``."""

from __future__ import annotations

import pytest

from rebrain_node.engine.open import BACKENDS

#: run on every machine
CPU = ("openvino", "torch")
ENGINES = [
    name if name in CPU else pytest.param(name, marks=pytest.mark.gpu) for name in sorted(BACKENDS)
]
