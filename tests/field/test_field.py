"""Every case of the field has its right answer."""

from __future__ import annotations

import pytest

from tests.field.__main__ import judge
from tests.field.case import Case, cases

CASES = list(cases())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_of_the_field_is_judged_rightly(case: Case):
    got = judge(case)
    assert got.text == case.expected, "\n".join(f.sentence for f in got.findings)
    assert case.sentence in (got.findings[0].sentence if got.findings else "")


def test_no_two_cases_have_one_name():
    assert len({case.name for case in CASES}) == len(CASES)
