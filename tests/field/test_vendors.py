"""The table of the scanners: every value has a source, and each study gives its thick series."""

from __future__ import annotations

import pytest

from rebrain_node.limits_file import shipped_limits
from rebrain_node.pipeline import judge_study
from tests.field.cases_vendors import RIGHT
from tests.support.scanners import SCANNERS, SOURCES, Scanner, study


def _keys(scanner: Scanner) -> set[str]:
    rows = [scanner.common, *(series.attributes for series in scanner.series.values())]
    keys = {key for row in rows for _, key in row.values()}
    keys |= {element.source for element in scanner.private}
    return (keys | {scanner.outside[1]}) - {""}


def test_every_value_names_a_source_and_every_source_is_used():
    assert set.union(*map(_keys, SCANNERS)) == set(SOURCES)


@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda scanner: scanner.vendor)
def test_a_thick_axial_series_of_each_vendor_is_taken_from_its_study(scanner: Scanner):
    (accepted,) = judge_study(study(scanner, blank=True), shipped_limits()).accepted
    thick = {name for name in scanner.series if name.startswith(("thick", "tilted"))}
    assert accepted.series_description in {_description(scanner, name) for name in thick}


def _description(scanner: Scanner, name: str) -> str:
    """Series Description of a series, which the writer numbers where the vendor's is not known."""
    unnamed = f"{scanner.vendor} {1000 + list(scanner.series).index(name)}"
    return str(scanner.series[name].attributes.get("SeriesDescription", (unnamed, ""))[0])


@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda scanner: scanner.vendor)
def test_every_series_of_a_vendor_has_a_right_answer(scanner: Scanner):
    assert RIGHT[scanner.vendor].keys() == scanner.series.keys()
