"""What Body Part Examined (0018,0015) says, as far as its word is known."""

# ruff: noqa: RUF001 - letters of other scripts are meant

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

#: head: a word of the limits; other: a word for another part; unknown: any other word; silent: none
BodyPart = Literal["head", "other", "unknown", "silent"]

#: longer texts are cut: a Code String has at most 16 characters (PS3.5 6.2)
_LONGEST = 64
#: words that say nothing
_SILENT = re.compile(r"(?:UNKNOWN|UNDEFINED|UNSPECIFIED|NONE|OTHER|N/?A|DEFAULT|BODY|[\W_]*)")
#: parts that are no whole head: PS3.16 Annex L, and their everyday words in de fr es it pt nl pl ru
_OTHER_PARTS = re.compile(
    r"\b(?:"
    r"CHEST|THORAX|TORAX|TORACE|BRUST\w{0,8}|POITRINE|PECHO|PEITO|BORST|LUNGS?|LUNGE|POUMONS?|PULMON\w{0,8}|"
    r"HEART|CORONARY\w{0,8}|CARDIAC|AORTA|HERZ|COEUR|ABDOMEN\w{0,8}|ADDOME|BAUCH|VENTRE|BUIK|BRZUCH|"
    r"PELVIS\w{0,8}|BECKEN|BASSIN|BACINO|BEKKEN|LIVER|KIDNEYS?|COLON|PANCREAS|BLADDER|"
    r"NECK|HALS|COU|CUELLO|COLLO|PESCOCO|NEK|SZYJA|CAROTID\w{0,8}|THYROID|LARYNX|PHARYNX|"
    r"[CTLS]*SPINE\w{0,8}|WIRBEL\w{0,8}|[HBL]WS|RACHIS|RACHIDE|COLUMNA|COLUNA|KREGOSLUP\w{0,8}|"
    r"SHOULDER|SCHULTER|EPAULE|HOMBRO|ARM|ELBOW|HAND|WRIST|FINGER|EXTREMITY|UPPER EXTREMITY|"
    r"HIP|HUFTE|HANCHE|CADERA|LEG|FEMUR|KNEE|KNIE|GENOU|RODILLA|GINOCCHIO|JOELHO|"
    r"ANKLE|FOOT|FUSS|PIED|TOE|CALCANEUS|"
    r"SINUS(?:ES)?|PARANASAL\w{0,8}|ORBITS?|FACE|FACIAL|JAW|MANDIBLE|MAXILLA|DENTAL|TEETH|"
    r"EARS?|IAC|MASTOID\w{0,8}|TEMPORAL BONE|"
    r"ШЕЯ|ГРУДЬ|ГРУДНАЯ\w{0,8}|ЖИВОТ|ТАЗ|ПОЗВОНОЧНИК"
    r")\b"
)


def read_body_part(text: str | None, head_words: Sequence[str]) -> tuple[BodyPart, str]:
    """Say what a body part is, and the known word by which it was recognised.

    Parameters
    ----------
    text : str or None
        As received.
    head_words : sequence of str
        In capitals, `series.body_parts` of the limits; empty: any word passes.
    """
    plain = _plain((text or "")[:_LONGEST])
    if not head_words or _SILENT.fullmatch(plain):
        return "silent", ""
    head = next((word for word in head_words if _plain(word) in plain), None)
    if head is not None:
        return "head", head
    other = _OTHER_PARTS.search(plain)
    return ("other", other[0]) if other else ("unknown", "")


def _plain(text: str) -> str:
    """Capitals without accents, with blanks for underscores and hyphens."""
    decomposed = unicodedata.normalize("NFD", text.upper())
    letters = "".join(c for c in decomposed if not unicodedata.combining(c))
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", letters)).strip()
