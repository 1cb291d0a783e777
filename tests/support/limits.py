"""The limits that ship, as the tests use them."""

from rebrain_node.limits_file import shipped_limits

LIMITS = shipped_limits()
GEOMETRY = LIMITS.geometry
