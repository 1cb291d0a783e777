"""Plans that TensorRT built on this node, each with a MAC, in a folder that only the node can read.

A plan is code for a GPU. One that this node did not build for the same bundle, library and GPU is
not loaded: it is reported, and built again.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from rebrain_node.blobs import sync_folder, write_file

_KEY_BYTES: Final = 32
_MAC_BYTES: Final = hashlib.sha256().digest_size
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PlanKey:
    """What a plan depends on."""

    graph: str  #: network, control, encoder or scale
    bundle: str  #: digest
    library: str  #: name and version, and how the graph is rewritten
    target: str  #: compute capability of the GPU, e.g. ``SM89``

    @property
    def text(self) -> str:
        """All of it, one to a line."""
        return f"{self.graph}\n{self.bundle}\n{self.library}\n{self.target}\n"

    @property
    def file(self) -> str:
        """Name of the plan's file."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:32]
        return f"{self.graph}-{self.target}-{digest}.plan"


class PlanStore:
    """The plans of one folder, made with mode 0700."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: PlanKey) -> bytes | None:
        """Return a plan; None where there is none that this node built for the key."""
        path = self.folder / key.file
        try:
            content = path.read_bytes()
            own = hmac.compare_digest(content[:_MAC_BYTES], self._mac(key, content[_MAC_BYTES:]))
        except FileNotFoundError:
            return None
        except OSError as error:
            _LOG.warning("plan %s cannot be read (%s) and is built again", path, error.strerror)
            return None
        if not own:
            _LOG.warning(
                "plan %s is damaged or was not built by this node; it is not used, and built again",
                path,
            )
            return None
        return content[_MAC_BYTES:]

    def write(self, key: PlanKey, plan: bytes) -> None:
        """Keep a plan; where it cannot be kept, the next start builds it again."""
        path = self.folder / key.file
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(path, self._mac(key, plan) + plan, mode=0o600)
            sync_folder(self.folder)
        except OSError as error:
            _LOG.warning("plan %s cannot be kept: %s", path, error.strerror)

    def _mac(self, key: PlanKey, plan: bytes) -> bytes:
        return hmac.digest(self._secret, key.text.encode() + plan, "sha256")

    @cached_property
    def _secret(self) -> bytes:
        """The key of the MAC, made once; two processes that make it at once agree on one."""
        path = self.folder / "key"
        if not path.exists():
            new = self.folder / f"{uuid.uuid4().hex}.key"
            write_file(new, secrets.token_bytes(_KEY_BYTES), mode=0o600)
            try:
                os.link(new, path)
            except FileExistsError:
                pass
            finally:
                new.unlink()
        return path.read_bytes()
