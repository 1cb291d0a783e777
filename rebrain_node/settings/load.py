"""Read settings from a TOML file and from ``REBRAIN_*`` environment variables."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError as EnvironmentFault

from rebrain_node.errors import SettingsError
from rebrain_node.settings.node import PREFIX, Settings
from rebrain_node.validation import faults_of, nearest


def load_settings(path: Path | None) -> Settings:
    """Read and check the settings file; without one the defaults and the environment hold.

    Raises
    ------
    SettingsError
        The file is missing or not TOML, or a setting is unknown or outside its range.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}; give --config FILE") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} is not TOML: {error}") from error
    try:
        return Settings(**values)
    except ValidationError as error:
        faults = faults_of(error, Settings)
        raise SettingsError(f"{path or 'environment'}: {faults}") from error
    except EnvironmentFault as error:
        raise SettingsError(_bad_variables()) from error


_DATA_FOLDER = f"{PREFIX}DATA"  # of the trainer, which may run on the same machine


def misspelt_variables() -> list[str]:
    """Return a sentence for each environment variable that names no setting but nearly does."""
    groups = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    return [
        f"the environment variable {name} names no setting{hint}"
        for name in sorted(os.environ)
        if name.startswith(PREFIX)
        and name != _DATA_FOLDER
        and (first := name.partition("__")[0]) not in groups
        and (hint := nearest(first, groups))
    ]


def _bad_variables() -> str:
    """Name the variables that hold what looks like JSON and is none."""
    faults = []
    for name, text in sorted(os.environ.items()):
        if name.startswith(PREFIX) and text.lstrip()[:1] in ("[", "{"):
            try:
                json.loads(text)
            except ValueError as error:
                faults.append(f"{name} is not JSON: {error}")
    found = "; ".join(faults) or "a list or table is not JSON"
    return (
        f"environment: {found}; a list or table is written "
        """as JSON, e.g. REBRAIN_SOURCES='[{"name": "pacs", "ae_title": "PACS", "host": "h"}]'"""
    )
