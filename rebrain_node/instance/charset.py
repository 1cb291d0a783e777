"""Whether the text of an instance can be read as declared (PS3.3 C.12.1.1.2, PS3.5 6.1)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS, PersonName

_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_DEFAULT_REPERTOIRE = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})


def charset_problem(instance: Dataset) -> str | None:
    """Say what is wrong with the character set, or ``None``; no text of the instance is told.

    Only the top level is read: the identity of the patient lies there.
    """
    terms = _terms(instance)
    if any(term not in python_encoding for term in terms):
        return "Specific Character Set (0008,0005) names a character set that is not known"
    ascii_only = _DEFAULT_REPERTOIRE.issuperset(terms)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            encodings = convert_encodings(terms)
        except (UserWarning, LookupError):
            return "Specific Character Set (0008,0005) combines character sets that do not combine"
        for tag in list(instance.keys()):
            for value in _texts(instance, BaseTag(tag)):
                if not _readable(value, encodings, ascii_only=ascii_only):
                    return "a text is not in the character set that (0008,0005) declares"
    return None


def _terms(instance: Dataset) -> list[str]:
    declared = instance.get("SpecificCharacterSet")
    return [declared] if isinstance(declared, str) else [str(t) for t in declared or [""]]


def _texts(instance: Dataset, tag: BaseTag) -> Sequence[str | bytes]:
    """Return the texts of one element, as received where nobody has decoded them yet."""
    element = instance.get_item(tag)
    vr = getattr(element, "VR", None) or _vr(tag)
    value = getattr(element, "value", None)
    if vr not in _TEXT_VRS or not value:
        return ()
    parts = [value] if isinstance(value, str | bytes | PersonName) else list(value)
    return [p.original_string or str(p) if isinstance(p, PersonName) else p for p in parts]


def _vr(tag: BaseTag) -> str | None:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return None


def _readable(value: str | bytes, encodings: list[str], *, ascii_only: bool) -> bool:
    if ascii_only:
        return value.isascii()
    if isinstance(value, str):
        return "\ufffd" not in value
    try:
        return "\ufffd" not in decode_bytes(value, encodings, PN_DELIMS | TEXT_VR_DELIMS)
    except (UnicodeError, UserWarning, LookupError):
        return False
