"""What a rule of the gate is, and how a set is evaluated against rules.

A rule is a function under a decorator that gives its code, what must hold, and the objects it holds
for; its docstring says why. ``@rule`` takes a function of one object, which returns what is wrong
with the object or None. ``@set_rule`` takes a function of the whole set, which yields violations.
Both turn the function into a `Rule`; the tables of docs/gate.md are generated from the rules.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import ObjectKind
from rebrain_node.steps.gate.context import Context, Plane, SlicePixels, WrittenObject


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


@dataclass(frozen=True)
class Violation:
    """One place where a rule is violated; contains no value of the patient's."""

    where: str  #: the object, e.g. ``MR 12``, or ``set``
    what: str  #: what is wrong with it


@dataclass(frozen=True)
class Rule:
    """One requirement on a set of written objects."""

    code: str  #: stable, ``GATE-...``
    requirement: str  #: what must hold, one sentence
    why: str  #: docstring of its function
    holds_for: str  #: the objects it holds for, in words
    violations: Callable[[Context], Iterable[Violation]]  #: empty if the rule holds


@dataclass(frozen=True)
class Scope(Generic[T]):
    """The objects of a set that a rule holds for."""

    name: str
    objects: Callable[[Context], Iterable[T]]


def _kinds(*kinds: ObjectKind) -> Scope[WrittenObject]:
    return Scope(", ".join(kinds), lambda context: context.of(*kinds))


ALL: Final = Scope[WrittenObject]("every object", lambda context: context.objects)
ALL_AND_FRAMES: Final = Scope[WrittenObject](
    "every object, MR frames", lambda context: context.with_frames(context.objects)
)
IMAGES: Final = _kinds("MR", "PM", "SEG", "SC")
IMAGES_AND_FRAMES: Final = Scope[WrittenObject](
    "MR, PM, SEG, SC, MR frames", lambda context: context.with_frames(IMAGES.objects(context))
)
MR_AND_FRAMES: Final = Scope[WrittenObject](
    "MR, MR frames", lambda context: context.with_frames(context.of("MR"))
)
#: MR images, or the frames of an Enhanced MR
SLICES: Final = Scope[WrittenObject]("MR slices", lambda context: context.mr_slices)
#: planes of the MR slices; a slice without a complete plane violates GATE-PLANE
PLANES: Final = Scope[Plane]("MR slices", lambda context: context.mr_planes)
#: pixels of the MR slices; pixel data of another length violate GATE-STRUCTURE
PIXELS: Final = Scope[SlicePixels]("MR slices", lambda context: context.mr_pixels)
MR_MAP_AND_SEGMENTATION: Final = _kinds("MR", "PM", "SEG")
MAP_AND_SEGMENTATION: Final = _kinds("PM", "SEG")
MAP: Final = _kinds("PM")
PREVIEW: Final = _kinds("SC")
PRESENTATION_STATE: Final = _kinds("PR")
REPORT: Final = _kinds("SR")
KEY_OBJECTS: Final = _kinds("KOS")


def rule(
    code: str, requirement: str, *, on: Scope[T]
) -> Callable[[Callable[[T, Context], str | None]], Rule]:
    """Make a rule of a function that says what is wrong with one object, or returns None."""

    def decorate(check: Callable[[T, Context], str | None]) -> Rule:
        def violations(context: Context) -> Iterator[Violation]:
            for each in on.objects(context):
                what = check(each, context)
                if what is not None:
                    yield Violation(each.name, what)

        return Rule(code, requirement, _docstring(check), on.name, violations)

    return decorate


def set_rule(
    code: str, requirement: str, *, on: str = "the set"
) -> Callable[[Callable[[Context], Iterable[Violation]]], Rule]:
    """Make a rule of a function that yields the violations of a whole set."""
    return lambda violations: Rule(code, requirement, _docstring(violations), on, violations)


def _docstring(function: Callable[..., object]) -> str:
    return " ".join((function.__doc__ or "").split())


def rules_of(module: object) -> tuple[Rule, ...]:
    """Return the rules that a module defines, in the order of their definition."""
    return tuple(value for value in vars(module).values() if isinstance(value, Rule))


def expect_equal(obj: WrittenObject, keyword: str, expected: str) -> str | None:
    """Say that an attribute has another value than expected, None where it has that value."""
    found = obj.get(keyword)
    return None if found == expected else f"{keyword} is {found}, not {expected}"


#: what a damaged data set may raise within a rule: such a rule counts as violated
_EVALUATION_ERRORS = (
    AttributeError, KeyError, IndexError, TypeError, ValueError, ArithmeticError, struct.error,
    NotImplementedError, RuntimeError,
)  # fmt: skip


def evaluate(context: Context, rules: Sequence[Rule]) -> Iterator[Finding]:
    """Yield one finding for each violated rule, in the order of the rules."""
    for each in rules:
        try:
            violations = tuple(each.violations(context))
        except _EVALUATION_ERRORS as error:
            reason = f"This cannot be evaluated ({type(error).__name__}) and counts as violated."
            yield Finding(code=each.code, sentence=f"{each.requirement} {reason}")
            continue
        if violations:
            first, others = violations[0], len(violations) - 1
            more = f", and {others} more" if others else ""
            yield Finding(
                code=each.code,
                sentence=f"{each.requirement} {first.where}: {first.what}{more}.",
                value=first.what,
                limit=each.requirement,
            )
