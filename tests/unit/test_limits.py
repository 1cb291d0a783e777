"""The limits: what ships is what conf holds; a wrong key is named with its value and range."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebrain_node.domain.limits import POLICY_CODES
from rebrain_node.errors import SettingsError
from rebrain_node.limits_file import load_limits, shipped_limits

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "conf/limits.toml").read_text(encoding="utf-8")


def test_the_limits_that_ship_are_the_ones_in_conf():
    assert (ROOT / "rebrain_node/defaults/limits.toml").read_text(encoding="utf-8") == TEXT
    assert shipped_limits() == load_limits(TEXT)


def test_the_digest_follows_the_content_not_comments_or_order():
    limits = shipped_limits()
    assert load_limits("# a comment\n" + TEXT).digest == limits.digest
    assert load_limits(TEXT.replace("tilt_deg = 30", "tilt_deg = 29")).digest != limits.digest
    assert len(limits.digest) == 64


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("tilt_deg = 30", "tilt_deg = 90", ("geometry.tilt_deg", "90", "0 to 45 degrees")),
        ("tilt_deg = 30", 'tilt_deg = "30"', ("geometry.tilt_deg", "'30'")),
        ("tilt_deg = 30", "tilt_deg = nan", ("geometry.tilt_deg", "nan")),
        ("tilt_deg = 30", "tilt_deg = true", ("geometry.tilt_deg", "True")),
        ("tilt_deg = 30", "", ("geometry.tilt_deg", "missing")),
        ("tilt_deg = 30", "tilt_deg = 30\ntile_deg = 1", ("geometry.tile_deg", "unknown")),
        ("slices = [12, 400]", "slices = [400, 12]", ("series.slices", "least")),
        ("slices = [12, 400]", "slices = 12", ("series.slices", "12")),
        ('plane = "axial"', 'plane = "oblique"', ("series.plane", "oblique", "axial")),
        ('AGE = "refuse"', 'AGE = "ignore"', ("policy.AGE", "ignore", "'refuse' or 'flag'")),
        ('AGE = "refuse"', 'AGE = "refuse"\nHU = "flag"', ("policy.HU", "unknown")),
        ("soft = ['U[A-C]'", "soft = ['U[A-C'", ("kernels, entry 4", "U[A-C")),
        ("[series]", "[sery]", ("sery is unknown", "series is missing")),
        ("[series]", "[series", ("not TOML",)),
    ],
)
def test_an_unfit_limit_is_refused_and_named(old, new, named):
    assert old in TEXT
    with pytest.raises(SettingsError) as caught:
        load_limits(TEXT.replace(old, new, 1))
    assert [word for word in named if word not in str(caught.value)] == []


def test_only_codes_with_a_policy_can_be_flags():
    flags = TEXT
    for code in POLICY_CODES:
        flags = flags.replace(f'{code} = "refuse"', f'{code} = "flag"')
    limits = load_limits(flags)
    assert {limits.severity(code) for code in POLICY_CODES} == {"flag"}
    assert limits.severity("ID-MIXED") == "refuse"
