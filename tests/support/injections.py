"""Sixty strings that would be markup, control sequences or formulas where they are not escaped."""

from __future__ import annotations

from typing import Final

_MARKUP: Final = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</td></tr></table>",
    "'--></style><iframe src='http://example.org'>", "<b onmouseover=alert(1)>", "<!-- ", "-->",
    "</svg></article></main>", "&lt;b&gt; & co", "<svg onload=alert(1)>", "]]>", "<![CDATA[x",
    "<a href='javascript:alert(1)'>x</a>", "' onclick='alert(1)", '" style="display:none',
    "</title><title>x", "<meta http-equiv=refresh content=0>", "<base href=//example.org>",
    "<link rel=stylesheet href=x>", "<form action=x>", "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>", "<object data=x>", "{{7*7}}", "${7*7}", "%3Cscript%3E",
    "&#60;script&#62;", "\u2028<script>", "<scr\x00ipt>", "</style><style>*{display:none}",
)  # fmt: skip
_CONTROL: Final = (
    "\x1b[31mred", "\x1b]0;title\x07", "\x1b[2J", "\x9b31m", "a\rb", "a\nb", "a\tb", "a\x08b",
    "a\x00b", "\u202egnp.exe", "\u2066x\u2069", "\u200bx", "\ufeffx", "a\x85b", "\x7f", "\x0c",
    "\ud800", "a\u2029b",
)  # fmt: skip
_OTHER: Final = (
    "=1+1", "+1+1", "-1+1", "@SUM(1,1)", "=HYPERLINK(\"x\")", "\t=1+1", "\r=1+1", "'; DROP TABLE x",
    "[bold]x[/bold]", "[link=x]y[/link]", "%s%s%n", "a" * 2000,
)  # fmt: skip
INJECTIONS: Final = (*_MARKUP, *_CONTROL, *_OTHER)
