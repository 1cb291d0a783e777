"""Reads the clinical limits from their TOML file, ``conf/limits.toml``."""

from __future__ import annotations

import json
import tomllib
from importlib import resources

from pydantic import ValidationError

from rebrain_node.domain.limits import Limits
from rebrain_node.errors import SettingsError
from rebrain_node.validation import faults_of


def load_limits(text: str) -> Limits:
    """Read limits from TOML.

    Raises
    ------
    SettingsError
        The text is not TOML, or a key is missing, unknown or outside its range; the message
        names key, value and range.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"limits: not TOML: {error}") from error
    try:
        return Limits.from_json(
            # a date is no value of any limit: as text it is refused by name
            json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
        )
    except ValidationError as error:
        raise SettingsError(
            f"limits: {faults_of(error, Limits)}; correct it, or copy it from the shipped limits"
        ) from error


def shipped_limits() -> Limits:
    """Read the limits that ship with the package."""
    folder = resources.files("rebrain_node") / "defaults"
    return load_limits((folder / "limits.toml").read_text(encoding="utf-8"))
