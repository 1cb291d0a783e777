"""The last step before a result may leave: an independent check of the bytes.

The gate shares nothing with ``write`` but the words of ``domain.marks``. It parses each object
anew and holds it against the rules of ``table.RULES``, one small function each; docs/gate.md
lists them. A broken rule is a defect of this software, so nothing is sent and nothing is mended.
"""

from rebrain_node.steps.gate.judge import gate

__all__ = ["gate"]
