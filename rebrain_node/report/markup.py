"""HTML in which nothing that comes from outside can become markup."""

from __future__ import annotations

import html
from dataclasses import dataclass


@dataclass(frozen=True)
class Html:
    """A piece of finished markup; every plain string is text and is escaped."""

    text: str


Content = Html | str | int


def tag(name: str, /, *content: Content, **attributes: str | int) -> Html:
    """Make an element; ``class_`` stands for class, an underscore for a hyphen."""
    inside = join(*content)
    if name in ("meta", "rect", "line", "img"):
        return Html(f"<{name}{_attributes(attributes)}/>")
    return Html(f"<{name}{_attributes(attributes)}>{inside.text}</{name}>")


def join(*content: Content) -> Html:
    """Put pieces one after the other."""
    return Html("".join(_escaped(piece) for piece in content))


def _escaped(piece: Content) -> str:
    return piece.text if isinstance(piece, Html) else html.escape(str(piece), quote=True)


def _attributes(attributes: dict[str, str | int]) -> str:
    return "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for name, value in attributes.items()
    )
