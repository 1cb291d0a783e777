"""Reads the clinical limits from their TOML file, ``conf/limits.toml``."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rebrain_node.domain.findings import Severity
from rebrain_node.domain.limits import (
    POLICY_CODES,
    ArtefactLimits,
    DomainLimits,
    GeometryLimits,
    HeadLimits,
    HounsfieldLimits,
    KernelRule,
    Limits,
    Range,
    SeriesLimits,
    Within,
)
from rebrain_node.errors import SettingsError

Part = TypeVar("Part")

_PARTS: Mapping[str, type[Any]] = {
    "series": SeriesLimits,
    "geometry": GeometryLimits,
    "hounsfield": HounsfieldLimits,
    "head": HeadLimits,
    "artefacts": ArtefactLimits,
    "domain": DomainLimits,
}


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
    _exact_keys("limits", content, (*_PARTS, "kernels", "policy"))
    parts: dict[str, Any] = {
        name: _part(name, kind, content[name]) for name, kind in _PARTS.items()
    }
    return Limits(
        **parts,
        kernels=_kernels(content["kernels"]),
        policy=_policy(content["policy"]),
        content=json.dumps(content, sort_keys=True, separators=(",", ":")),
    )


def shipped_limits() -> Limits:
    """Read the limits that ship with the package."""
    folder = resources.files("rebrain_node") / "defaults"
    return load_limits((folder / "limits.toml").read_text(encoding="utf-8"))


def _exact_keys(name: str, value: object, known: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise SettingsError(f"limits: {name} is {value!r}; it must be a table [{name}]")
    for key in sorted(value.keys() - set(known)):
        raise SettingsError(f"limits: {name}.{key} is unknown; known are {', '.join(known)}")
    for key in known:
        if key not in value:
            raise SettingsError(f"limits: {name}.{key} is missing; copy it from the shipped limits")


def _part(name: str, kind: type[Part], value: Any) -> Part:
    hints = get_type_hints(kind, include_extras=True)
    _exact_keys(name, value, tuple(hints))
    return kind(**{key: _checked(f"{name}.{key}", value[key], hint) for key, hint in hints.items()})


def _checked(key: str, value: Any, hint: Any) -> float | Range | str | tuple[str, ...]:
    if get_origin(hint) is Literal:
        return _word(key, value, get_args(hint))
    if get_origin(hint) is tuple:
        return _texts(key, value)
    kind, within = get_args(hint)
    return _number(key, value, within) if kind is float else _range(key, value, within)


def _number(key: str, value: Any, within: Within) -> float:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not within.low <= value <= within.high:
        raise SettingsError(
            f"limits: {key} is {value!r}; it must be a number from {within.low} to "
            f"{within.high} {within.unit}"
        )
    return float(value)


def _range(key: str, value: Any, within: Within) -> Range:
    if not isinstance(value, list) or len(value) != 2:
        raise SettingsError(
            f"limits: {key} is {value!r}; it must be [least, greatest] within {within.low} to "
            f"{within.high} {within.unit}"
        )
    least, greatest = (_number(key, number, within) for number in value)
    if least > greatest:
        raise SettingsError(f"limits: {key} is {value!r}; the least must not exceed the greatest")
    return least, greatest


def _word(key: str, value: Any, words: tuple[str, ...]) -> str:
    if value not in words:
        raise SettingsError(f"limits: {key} is {value!r}; it must be {' or '.join(words)}")
    return str(value)


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise SettingsError(f"limits: {key} is {value!r}; it must be a list of texts")
    return tuple(value)


def _policy(value: Any) -> Mapping[str, Severity]:
    _exact_keys("policy", value, POLICY_CODES)
    for code, word in value.items():
        _word(f"policy.{code}", word, get_args(Severity))
    return dict(value)


def _kernels(value: Any) -> tuple[KernelRule, ...]:
    if not isinstance(value, list):
        raise SettingsError(f"limits: kernels is {value!r}; it must be tables [[kernels]]")
    return tuple(_kernel(f"kernels[{place}]", rule) for place, rule in enumerate(value))


def _kernel(name: str, value: Any) -> KernelRule:
    _exact_keys(name, value, ("vendors", "soft", "bone"))
    rule = KernelRule(**{key: _texts(f"{name}.{key}", words) for key, words in value.items()})
    for pattern in (*rule.soft, *rule.bone):
        try:
            re.compile(pattern)
        except re.error as error:
            raise SettingsError(
                f"limits: {name}: {pattern!r} is not a regular expression: {error}"
            ) from error
    return rule
