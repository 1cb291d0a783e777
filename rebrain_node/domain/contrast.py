"""Whether contrast was given, as the header says it: one reading of all elements and words.

Elements: PS3.3 C.7.6.4 (Contrast/Bolus), C.7.6.4b (Enhanced Contrast/Bolus), C.7.6.16.2.12
(Contrast/Bolus Usage). What scanners and technologists write there is free text, so words for
"none" and for contrast are known in the languages of the clinics; docs/selection.md lists where
they were seen. Only words of this module are ever shown, never the text of the source.
"""

# ruff: noqa: RUF001 - letters of other scripts are meant

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

#: given: an element says so; described: only a description or Image Type does; doubtful: elements
#: contradict each other, or only the protocol's name says so; none: denied; silent: nothing is said
Evidence = Literal["given", "described", "doubtful", "none", "silent"]
#: from the strongest to the weakest
_EVIDENCE: tuple[Evidence, ...] = ("given", "described", "doubtful", "none", "silent")
_Says = Literal["given", "none", "silent"]

#: longer texts are cut: a Long String has at most 64 characters (PS3.5 6.2)
_LONGEST = 128
#: letters without a decomposition
_LETTERS = str.maketrans({"ı": "i", "ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe"})


@dataclass(frozen=True, kw_only=True)
class ContrastElements:
    """What the elements of one frame hold, as text; empty where absent."""

    agents: tuple[str, ...] = ()  #: (0018,0010), and code meanings of (0018,0012)
    ingredient: str = ""  #: (0018,1048)
    route: str = ""  #: (0018,1040)
    volume_ml: float | None = None  #: (0018,1041)
    dose_ml: float | None = None  #: (0018,1044), Total Dose
    concentration: float | None = None  #: (0018,1049), mg/ml
    start_time: str = ""  #: (0018,1042)
    acquisition_time: str = ""  #: (0008,0032)
    #: of (0018,9341), whether Agent Administered (0018,9342) is not NO
    usage: bool | None = None
    description: str = ""  #: (0008,103E), of the series
    protocol: str = ""  #: (0018,1030); of the whole examination


@dataclass(frozen=True, kw_only=True)
class ContrastReading:
    """What the header says of contrast."""

    evidence: Evidence
    #: which element says what, e.g. ``Contrast/Bolus Volume (0018,1041) is 80 ml``; empty if silent
    words: str = ""

    @property
    def rank(self) -> int:
        """0 for the strongest evidence that contrast was given."""
        return _EVIDENCE.index(self.evidence)


SILENT = ContrastReading(evidence="silent")


def strongest(readings: Sequence[ContrastReading]) -> ContrastReading:
    """Return what says most that contrast was given; `SILENT` if there is nothing to read."""
    return min(readings, key=lambda reading: reading.rank, default=SILENT)


@lru_cache(maxsize=4096)
def read_contrast(elements: ContrastElements, image_type: tuple[str, ...] = ()) -> ContrastReading:
    """Read all elements of one frame together.

    An element that says "given" counts, unless another says "none": the two contradict each other
    and the pixels must tell. Where no element says anything the description counts, and where
    that is silent too the name of the protocol, which other series of the examination share.
    """
    read = list(_read_elements(elements))
    given = [words for says, words in read if says == "given"]
    none = [words for says, words in read if says == "none"]
    description, described = _read_description(elements.description, image_type)
    if given and none:
        return ContrastReading(evidence="doubtful", words=f"{given[0]}, but {none[0]}")
    if given:
        return ContrastReading(evidence="given", words=given[0])
    if described == "given":
        if none:
            return ContrastReading(evidence="doubtful", words=f"{description}, but {none[0]}")
        return ContrastReading(evidence="described", words=description)
    if none or described == "none":
        return ContrastReading(evidence="none", words=none[0] if none else description)
    says, word = _read_text(elements.protocol)
    if says == "given":
        words = f"Protocol Name (0018,1030) says {word}"
        return ContrastReading(evidence="doubtful", words=words)
    return SILENT


def _read_elements(elements: ContrastElements) -> Iterator[tuple[_Says, str]]:
    for agent in elements.agents:
        yield read_agent(agent, "Contrast/Bolus Agent (0018,0010)")
    yield read_agent(elements.route, "Contrast/Bolus Route (0018,1040)")
    yield read_agent(elements.ingredient, "Contrast/Bolus Ingredient (0018,1048)")
    yield _read_amount(elements.volume_ml, "Contrast/Bolus Volume (0018,1041)", "ml")
    yield _read_amount(elements.dose_ml, "Contrast/Bolus Total Dose (0018,1044)", "ml")
    yield _read_amount(
        elements.concentration, "Contrast/Bolus Ingredient Concentration (0018,1049)", "mg/ml"
    )
    if elements.usage is not None:
        words = "Contrast/Bolus Usage (0018,9341) says that an agent was administered"
        no = "Contrast/Bolus Agent Administered (0018,9342) says NO"
        yield ("given", words) if elements.usage else ("none", no)
    yield _read_start(elements.start_time, elements.acquisition_time)


def _read_amount(amount: float | None, element: str, unit: str) -> tuple[_Says, str]:
    if amount is None or amount < 0.0:
        return "silent", ""
    return "given" if amount > 0.0 else "none", f"{element} is {amount:g} {unit}"


def _read_start(start: str, acquired: str) -> tuple[_Says, str]:
    """A bolus that starts after the slice was acquired is not in the slice."""
    begun, seen = (re.sub(r"[^0-9]", "", text.split(".")[0]) for text in (start, acquired))
    if len(begun) != 6:
        return "silent", ""
    element = f"Contrast/Bolus Start Time (0018,1042) is {begun[:2]}:{begun[2:4]}:{begun[4:]}"
    if len(seen) == 6 and begun > seen:
        return "none", f"{element}, after the slices were acquired"
    return "given", element


def _read_description(text: str, image_type: tuple[str, ...]) -> tuple[str, _Says]:
    flavour = next((value for value in image_type if value in _IMAGE_FLAVOURS), None)
    if flavour is not None:
        return f"Image Type (0008,0008) says {flavour}", _IMAGE_FLAVOURS[flavour]
    says, word = _read_text(text)
    return (f"Series Description (0008,103E) says {word}" if word else ""), says


#: PS3.3 C.8.16.1.3, Value 3 of Image Type of an enhanced object
_IMAGE_FLAVOURS: dict[str, _Says] = {
    "POST_CONTRAST": "given", "PRE_CONTRAST": "none", "ANGIO": "given", "CARDIAC_CTA": "given",
}  # fmt: skip

# --- words ------------------------------------------------------------------------------------

#: contrast, its abbreviations, and how it is given: en de fr es it pt nl sv da no pl cs tr ru
_NOUN = (
    r"(?:(?:i\.?v\.? ?)?(?:contrast\w*|contraste\w*|cntr?st\w*|contrst|kontras\w*|"
    r"km|kmi|k\.?m\.?|kl|k\.?l\.?|mdc|m\.?d\.?c\.?|mezzo di contrasto|pdc|pci|civ|cte|cm|"
    r"produit de contraste|inj(?:ection|ecte\w*|\.)?|enhancement|enhanced|agents?|dye|medi(?:um|a)|"
    r"bolus|контраст\w*|к/?у|σκιαγραφικ\w*|tehoste\w*|varjoain\w*)|i\.?v\.?)"
)
#: "no", "without": the same languages, then fi hu ro el hr id vi he ar
_NO = (
    r"(?:no|non|not|nil|none|without(?: any)?|w/o|w\\o|w-o|wo|ohne|o\.?|kein\w*|nicht|sans|"
    r"pas d[e']|aucun\w*|senza|nessun\w*|sin|s/|sem|nenhum\w*|zonder|z/|geen|utan|uten|uden|"
    r"u/|ingen|inga|intet|ej|ikke|bez|brak|zadn\w*|ei|ilman|fara|без|нет|б/|χωρισ|"
    r"nincs\w*|nema|tanpa|khong|ללא|בלי|بدون)"
)
#: before an injection, native: no second word is needed
_NATIVE = (
    r"(?:nativ\w*|natiiv\w*|natif|un-?enh(?:anced)?|non ?-?enhanced|plain|ncct|nect|n[ce] ct|"
    r"nc|blanco|basale|pre-? ?(?:contrast\w*|contraste|kontrast\w*|km|mdc|inj\w*|iv|c)|"
    r"vor km|avant inj\w*|prima mdc|нативн\w*|"
    r"без контраст\w*|б/к|[sbuz]/[ck]|w/?o|without|ohne|non ?-? ?(?:contrast\w*|con|ce|inj\w*)|"
    r"(?:c|ce|km|iv|i|civ|inj|mdc) ?-(?!\w| [a-z])|-c(?! ?\w)|kontrastsiz|"
    r"kontraszt\w* nelkul|simple|"
    r"diretta|nur nativ|s[./]? ?(?:contraste|cte|mdc|civ|pdc))"
)
_NATIVE_SIGNS = (
    r"平扫|平掃|不增强|未增强|非增強|无增强|不使用|未使用|使用せず|使用しない|単純|單純|非造影|造影前|造影なし|造影無し|造影剤なし|"
    r"비조영|조영 ?전|조영제 ?없음|단순"
)
#: words for contrast in a description
_WITH = (
    r"(?:with(?: iv)?|w|w/|wc|mit|m\.?|avec|con|com|c/|met|med|po|ile|after|nach|apres|dopo|"
    r"post|pos|tras|tra|efter|etter|na|c|с|со|после|за|με|cu|kontrastli)"
)
_ENHANCED = (
    rf"(?:{_WITH}[ .]*{_NOUN}|(?:s|z) (?:kontras\w*|k\.?l\.?)|"
    r"c ?\+{1,2}|\+ ?(?:c|km|iv|ce|mdc)|(?:iv|km|ce|ci|inj) ?\+|ce|cect|"
    r"wc|w/c|c/c|cta|ctv|cnta|kta|кта|ctp|ангио(?:гра\w*)?|"
    r"(?:head|brain|neck|kopf|hals|cerebral|tc|ct|ce)?angio(?:gra\w*|tc|ct)?|venogra\w*|"
    r"post-?contrast\w*|postcontrast\w*|postkontrast\w*|postcm|post ?(?:iv|inj|gad)\w*|"
    r"arteri(?:al|el)\w*|venous|veno[es]?s\w*|venos\w*|injecte\w*|injete\w*|"
    r"kontrastli\w*|enhanced|enh|bolus|"
    r"post(?=$| *\d+(?:[.,]\d+)?(?: ?mm)?(?!\w)| (?:head|brain|skull|ax\w*|std|soft|h\d|c\b))|"
    r"(?<!optimum )(?<!optimal )(?<!high )(?<!low )(?<!gray )(?<!grey )(?<!soft )(?<!best )"
    r"(?<!white )(?<!wm )(?<!gm )(?<!tissue )(?<!image )(?<!auto )"
    r"(?:contrast|contraste|contrasto|kontrast)|mdc|km|perf(?:usion\w*)?|"
    r"(?:с|со|после) (?:контраст\w*|ку)|контраст\w*)"
)
_ENHANCED_SIGNS = r"增强|增強|造影|조영|혈관|\+ ?c(?![^\W_])"
#: both phases in one examination: the text says nothing about this series
_BOTH = (
    r"(?:w(?:ith)?[ /&+,]*(?:and|und)?[ /&+,]*(?:w/?o|without)|"
    r"(?:w/?o|without)(?: contrast)?[ /&+,]*(?:and|/|&|\+)[ /&+,]*w(?:ith)?|"
    r"(?:mit|avec|con|com|met)[ /&+,]*(?:und|et|e|y|en|o|oder|ou)?[ /&+,]*"
    r"(?:ohne|sans|senza|sin|sem|zonder)|"
    r"(?:ohne|sans|senza|sin|sem|zonder)[ /&+,]*(?:und|et|e|y|en|o|oder|ou)?[ /&+,]*"
    r"(?:mit|avec|con|com|met)|nativ\w*[ /&+,]*(?:und|u\.?|et|e|y|i|och|og)?[ /&+,]*"
    r"(?:mit|m\.|nach|post|po) ?(?:km|kontrast\w*)|s/c[ /&+,ye]*c/c|c-[ /&+]*c\+|c\+[ /&+]*c-|"
    r"pre[ /&+,-]*(?:and|und|et|e|y)?[ /&+,]*post)"
)


def _words(pattern: str, signs: str = "") -> re.Pattern[str]:
    """Compile a pattern of whole words, and of signs of scripts that have no blanks.

    An ending is at most 8 letters long: nothing else of the source may stand in a sentence.
    """
    pattern = pattern.replace(r"\w*", r"\w{0,8}")
    alone = rf"(?<![^\W_])(?:{pattern})(?![^\W_])"
    return re.compile(f"{signs}|{alone}" if signs else alone)


_DENIAL = _words(
    rf"{_NO}[ .:_-]*{_NOUN}|{_NOUN} ?[:=-]? ?(?:no|none|nein|non|nie|nej|nee|ne|нет|not given)|"
    rf"{_NATIVE}",
    _NATIVE_SIGNS,
)
_AFFIRMATION = _words(_ENHANCED, _ENHANCED_SIGNS)
_BOTH_PHASES = _words(_BOTH)

#: an agent element that says nothing
_UNKNOWN = re.compile(r"[\W_]*(?:n/?a|unknown|unk|unbekannt|not? (?:known|applicable)|x+)?[\W_]*")
#: of an agent given by mouth: nothing is said of one in a vein
_NO_ORAL = _words(rf"{_NO}[ .:_-]*(?:oral\w*|p\.?o\.?|rectal\w*)(?: {_NOUN})?(?! ?(?:or|nor|/))")
#: a name of the element that nothing follows
_LABEL = re.compile(r"[\W_]*[:=][\W_]*")
#: words that go with others in an agent element
_FILLERS = _words(
    r"given|used|administered|applied|gegeben|was|the|any|of|or|agent|material|medi[ua]\w*|mittel|"
    r"contrast\w*|kontrast\w*|km|ml|cc|iv|po|oral"
)
#: what is left of an agent element that says "none"
_NOTHING = re.compile(
    r"(?:[\W_]|\b(?:0+(?:[.,]0+)? ?(?:ml|cc|mg|g)?|n|no|non|not|none|nil|null|"
    r"nein|nee|nej|nei|nao|ne|nie|нет|немає|off|false|leer|empty|neg|negative|"
    r"ohne|keine?[srm]?|sans|aucune?|rien|senza|"
    r"nessun[oa]?|niente|sin|ningun[oa]?|nada|sem|nenhum[a]?|zonder|geen|utan|ingen|inga|intet|"
    r"ingenting|uten|uden|bez|brak|zadn[aey]|ei|ilman|yok|hayir|fara|без|χωρισ|οχι|nat|"
    r"nincs(?:en)?|nema|tanpa|tidak|khong|ללא|בלי|بدون|n/a)\b|"
    r"なし|無し?|无|없음)*"
)
#: names of agents that may stand in a sentence (PS3.16 CID 12, and iodinated products)
_AGENTS = re.compile(
    r"omnipaque|iohexol|visipaque|iodixanol|ultravist|iopromid\w*|iomeron|iomeprol|isovue|iopamir\w*|"
    r"iopamid\w*|optiray|ioversol|xenetix|iobitridol|oxilan|ioxilan|imeron|solutrast|iopamiro|"
    r"accupaque|hexabrix|ioxaglate|conray|telebrix|iodine|iodin\w*|jod|iode|yodo|gadolin\w*|barium"
)


def read_agent(text: str, element: str = "Contrast/Bolus Agent (0018,0010)") -> tuple[_Says, str]:
    """Read an element that is to name an agent, a route or an ingredient.

    Returns
    -------
    says : {"given", "none", "silent"}
        Any text that is not known as "none" or as saying nothing means that contrast was given.
    words : str
        For a sentence; of the text only the name of a known agent.
    """
    plain = _plain(text)
    if _UNKNOWN.fullmatch(plain):
        return "silent", ""
    if _denies(plain) and _denies(_NO_ORAL.sub(" ", plain)):
        return "none", f"{element} says none"
    name = _AGENTS.search(plain)
    shown = f"names {name[0].upper()}" if name else "holds a text that does not mean none"
    return "given", f"{element} {shown}"


def _denies(plain: str) -> bool:
    """Whether a word denies an agent and no other word is left but those that go with it."""
    if not re.search(r"\w", plain):
        return True
    undenied = _DENIAL.sub(" ", plain)
    rest = _FILLERS.sub(" ", undenied).strip()
    if not _NOTHING.fullmatch(rest):
        return False
    label = _LABEL.fullmatch(rest) and plain.endswith(rest)
    return undenied != plain or re.search(r"\w", rest) is not None or bool(label)


def _read_text(text: str) -> tuple[_Says, str]:
    """Read a description: what it says, and the words of it that are known."""
    plain = _plain(text)
    if not plain or _BOTH_PHASES.search(plain):
        return "silent", ""
    denial = _DENIAL.search(plain)
    enhanced = _AFFIRMATION.search(_DENIAL.sub(" ; ", plain))
    if denial and enhanced:
        return "silent", ""
    if enhanced:
        return "given", _quoted(enhanced)
    return ("none", _quoted(denial)) if denial else ("silent", "")


def _quoted(match: re.Match[str]) -> str:
    return f"\u00ab{match[0].strip().upper()}\u00bb"


def _plain(text: str) -> str:
    """Lower case without accents, width and repeated blanks; signs of other scripts stay."""
    folded = unicodedata.normalize("NFKC", text[:_LONGEST]).casefold().translate(_LETTERS)
    letters = (_base(c) for c in folded if not unicodedata.combining(c))
    return re.sub(r"[\s_]+", " ", "".join(letters)).strip()


def _base(character: str) -> str:
    decomposed = unicodedata.normalize("NFD", character)
    latin_or_greek = decomposed[0].isascii() or "\u0370" <= decomposed[0] <= "\u03ff"
    return decomposed[0] if latin_or_greek else character
