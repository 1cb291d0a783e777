"""How each target is to be drawn, and why: measured, retrieved or interpolated."""

from __future__ import annotations

from rebrain_node.domain.volume import Guide, PreparedVolume, Target
from rebrain_node.errors import BundleRefused
from rebrain_node.model.recipe import Recipe
from rebrain_node.ports import Exemplars


def retrieve(
    prepared: PreparedVolume, exemplars: Exemplars | None, recipe: Recipe
) -> tuple[Guide, ...]:
    """Give every target its guide.

    Parameters
    ----------
    prepared : PreparedVolume
        Its targets are guided, in their order.
    exemplars : Exemplars or None
        The knowledge base; ``None`` where the bundle has none.
    recipe : Recipe
        Says whether exemplars are used at all.

    Returns
    -------
    tuple of Guide
        One for each target.

    Raises
    ------
    BundleRefused
        The recipe asks for exemplars, which this version does not retrieve.
    """
    if recipe.retrieval.method != "none":
        raise BundleRefused(
            f"the recipe's retrieval method is {recipe.retrieval.method!r}, this version knows "
            "'none' only; use a bundle without retrieval or a newer version of the node"
        )
    absent = (
        "the bundle has no knowledge base" if exemplars is None else "the recipe retrieves none"
    )
    return tuple(_guide(target, absent, prepared) for target in prepared.targets)


def _guide(target: Target, absent: str, prepared: PreparedVolume) -> Guide:
    if target.above == target.below:
        return Guide(target=target, kind="measured", reason="a slice was measured here")
    below, above = prepared.distances_mm[target.below], prepared.distances_mm[target.above]
    reason = (
        f"no slice was measured here and {absent}: interpolated between the measured slices "
        f"{target.distance_mm - below:.1f} mm below and {above - target.distance_mm:.1f} mm above"
    )
    return Guide(target=target, kind="interpolated", reason=reason)
