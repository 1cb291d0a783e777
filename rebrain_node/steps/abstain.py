"""Whether so much of a series is uncertain that it must not be published as it is."""

from __future__ import annotations

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.volume import SyntheticVolume
from rebrain_node.errors import SeriesRejected
from rebrain_node.model.recipe import Abstain


def abstain(
    synthetic: SyntheticVolume, abstain_above: Abstain | None, limits: Limits
) -> tuple[Finding, ...]:
    """Judge the uncertainty of the whole series.

    Parameters
    ----------
    synthetic : SyntheticVolume
        Each of its slices is marked by the recipe's limit on a slice.
    abstain_above : Abstain or None
        The recipe's limits; None judges nothing.
    limits : Limits
        Its policy says whether an uncertain series is refused.

    Returns
    -------
    tuple of Finding
        The flag ``UNCERTAIN``, or nothing.

    Raises
    ------
    SeriesRejected
        ``UNCERTAIN``, where the site's policy refuses such a series.
    """
    if abstain_above is None:
        return ()
    marked = sum(trusted is False for trusted in synthetic.trusted)
    share = marked / len(synthetic.trusted)
    if share <= abstain_above.series_share:
        return ()
    finding = Finding(
        code="UNCERTAIN",
        sentence=f"the network is not sure of {marked} of {len(synthetic.trusted)} slices: their "
        f"mean uncertainty is above {abstain_above.slice_above:g} of the display range",
        severity=limits.severity("UNCERTAIN"),
        value=round(share, 3),
        limit=abstain_above.series_share,
    )
    if finding.severity == "refuse":
        raise SeriesRejected([finding])
    return (finding,)
