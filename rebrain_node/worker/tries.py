"""How often work is tried, and what can come of one try."""

from __future__ import annotations

from typing import Final, Literal

#: how often one series is tried, by failure or by crash, before it is given up with a reason
TRIES: Final = 3

#: ``done``: nothing is left to do; ``again``: this try failed; ``wait``: the store is down
Outcome = Literal["done", "again", "wait"]
