"""Faults that pydantic found in a configuration or a file, in one line: key, requirement, value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

#: longer values are cut
_LONGEST_VALUE = 80
#: what is said of a whole file or table rather than of one value shows no value
_WITHOUT_VALUE = frozenset({"missing", "extra_forbidden", "json_invalid"})
#: user and password of a URL, which no message shows
_LOGIN: Final = re.compile(r"//[^/]*@")
_NUMBER: Final = "must be a number"
_WHOLE: Final = "must be a whole number"
_LIST: Final = "must be a list: write [[...]] above each table of it, or values within [ ]"
_TABLE: Final = "must be a table: write its name within [ ] on a line of its own"
#: requirement by kind of fault; what stands in braces is of the rule that was broken
_WORDS: Final[Mapping[str, str]] = {
    "bool_parsing": "must be true or false", "bool_type": "must be true or false",
    "int_parsing": _WHOLE, "int_type": _WHOLE, "int_from_float": _WHOLE,
    "float_parsing": _NUMBER, "float_type": _NUMBER, "finite_number": _NUMBER,
    "greater_than_equal": "must be {ge} or more", "less_than_equal": "must be {le} or less",
    "greater_than": "must be more than {gt}", "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "string_type": "must be text within quotes", "path_type": "must be a path within quotes",
    "tuple_type": _LIST, "list_type": _LIST,
    "model_type": _TABLE, "model_attributes_type": _TABLE, "dict_type": _TABLE,
}  # fmt: skip


def faults_of(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """List every fault: the key, what is required of it, and the value that was found.

    Parameters
    ----------
    error : ValidationError
    model : type of BaseModel, optional
        What was read: for an unknown key the nearest that it knows is named.

    Returns
    -------
    str
        E.g. ``geometry.tilt_deg: must be a number from 0 to 45 degrees, found 90``; several
        faults are separated by semicolons.
    """
    return "; ".join(_fault(details, model) for details in error.errors())


def nearest(value: str, known: Sequence[str]) -> str:
    """Return ``, did you mean X?`` with the nearest known value, or nothing."""
    close = get_close_matches(value, known, 1)
    return f", did you mean {close[0]}?" if close else ""


def _fault(details: ErrorDetails, model: type[BaseModel] | None) -> str:
    location, kind = details["loc"], details["type"]
    where = _key(location)
    if kind == "extra_forbidden":
        return f"{where} is unknown{nearest(str(location[-1]), _known_keys(model, location))}"
    if kind == "missing":
        return f"{where} is missing"
    what = details["msg"].removeprefix("Value error, ")
    if kind in _WORDS:
        what = _WORDS[kind].format(**details.get("ctx", {}))
    if kind in _WITHOUT_VALUE or isinstance(details["input"], dict):
        return f"{where}: {what}"
    value = details["input"]
    hint = nearest(value, _choices(what)) if kind == "literal_error" and _is_text(value) else ""
    shown = _LOGIN.sub("//...@", value) if _is_text(value) else value
    return f"{where}: {what}, found {shown!r:.{_LONGEST_VALUE}}{hint}"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _choices(what: str) -> list[str]:
    """Return the values that a requirement names within quotes."""
    return what.split("'")[1::2]


def _key(location: Sequence[int | str]) -> str:
    """Spell a location as ``kernels, entry 3: soft`` or ``receiver.port``."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f", entry {part + 1}"
        else:
            text += f": {part}" if ", entry " in text else f".{part}"
    return text.removeprefix(".") or "the file"


def _known_keys(model: type[BaseModel] | None, location: Sequence[int | str]) -> list[str]:
    """Return the keys of the table in which an unknown one stands."""
    for part in location[:-1]:
        if model is not None and isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            model = next(_models(annotation), None)
    return [] if model is None else list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Find the model of a field, also within a tuple or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
