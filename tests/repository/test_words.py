"""The words of the project: classes end in nouns of the glossary, sentences hold no riddle."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*ROOT.glob("rebrain_node/**/*.py"), *ROOT.glob("trainer/**/*.py")])
GLOSSARY = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
NOUNS = set(re.findall(r"`(\w+)`", GLOSSARY.split("## Nouns of classes")[1]))
_LAST_WORD = re.compile(r"[A-Z]+[0-9]*(?![a-z])|[A-Z][a-z0-9]*")
#: metaphors and archaic words for which the field has a term
BANNED = re.compile(
    r"\b(mourn\w*|beasts?|strangers?|for ever|mends?|mended|herself|nobody guides|food of)\b",
    re.IGNORECASE,
)
_PAGES = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]


@cache
def _classes(path: Path) -> list[ast.ClassDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def test_the_last_word_of_every_public_class_is_a_noun_of_the_glossary():
    names = [(node.name, path) for path in SOURCES for node in _classes(path)]
    assert len(names) > 200
    unknown = [
        f"{path.relative_to(ROOT)}: {name}"
        for name, path in names
        if _LAST_WORD.findall(name)[-1] not in NOUNS
    ]
    assert unknown == []


def test_every_noun_of_the_glossary_is_in_use():
    used = {_LAST_WORD.findall(node.name)[-1] for path in SOURCES for node in _classes(path)}
    assert sorted(NOUNS - used) == []


def test_no_sentence_holds_a_banned_word():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (*SOURCES, *_PAGES)
        if "decisions" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BANNED.search(line)
    ]
    assert found == []
