"""The age of the patient at the examination, in years, from whatever the header says of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date

#: unit of an age, by how it is written; PS3.5 6.2 (AS) allows D, W, M and Y after three digits
_YEARS = {"Y": 1.0, "J": 1.0, "A": 1.0, "M": 1.0 / 12.0, "W": 7.0 / 365.25, "D": 1.0 / 365.25}
_AGE = re.compile(
    r"0*(\d{1,5})(?:[.,]\d+)?\s*(Y(?:O|RS?|EARS?)?|J(?:AHRE?)?|A(?:NS?|NNI|NOS|N\.)?|"
    r"M(?:OS?|ONTHS?|ONATE?)?|W(?:KS?|EEKS?|OCHEN?)?|D(?:AYS?)?)?\.?"
)
_DATE = re.compile(r"(\d{4})[.\-/]?(\d{2})?[.\-/]?(\d{2})?")
#: nobody is older: such an age or birth date was put there by de-identification
_OLDEST_YEARS = 125.0


#: ages that differ by more contradict each other; birth dates are often cut to their year
_TOLERANCE_YEARS = 1.5


def age_years(
    age: str | None, birth_date: str | None, examination_dates: Iterable[str | None]
) -> float | None:
    """Age in years, or ``None`` where the header does not say it.

    Parameters
    ----------
    age : str or None
        Patient's Age (0010,1010): ``008Y``, also as scanners write it: ``8Y``, ``8 Y``, ``96M``,
        ``416W``, ``8``, ``8 years``. An age of 0 is what de-identification leaves and is no age.
    birth_date : str or None
        Patient's Birth Date (0010,0030); counts where the age is absent, unreadable or 0.
    examination_dates : iterable of str or None
        Of the study, acquisition, series, content; the first that can be read counts.
    """
    declared = _declared_years(age)
    return years_since_birth(birth_date, examination_dates) if declared is None else declared


def ages_disagree(age_years: float | None, since_birth_years: float | None) -> bool:
    """Whether two ages are not those of one person; one that is not known contradicts nothing."""
    if age_years is None or since_birth_years is None:
        return False
    return abs(age_years - since_birth_years) > _TOLERANCE_YEARS


def years_since_birth(
    birth_date: str | None, examination_dates: Iterable[str | None]
) -> float | None:
    """Years from the birth date to the first examination date that can be read, or ``None``."""
    born = _date(birth_date)
    examined = next((day for text in examination_dates if (day := _date(text))), None)
    if born is None or examined is None:
        return None
    years = (examined - born).days / 365.25
    return years if 0.0 < years <= _OLDEST_YEARS else None


def _declared_years(text: str | None) -> float | None:
    match = _AGE.fullmatch((text or "")[:32].strip().upper())
    if match is None:
        return None
    years = int(match[1]) * _YEARS[(match[2] or "Y")[0]]
    return years if 0.0 < years <= _OLDEST_YEARS else None


def _date(text: str | None) -> date | None:
    """Read a DA (PS3.5 6.2), one with points or hyphens, or a year alone as its middle."""
    match = _DATE.match((text or "").strip())
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[2] or 7), int(match[3] or 1))
    except ValueError:
        return None
