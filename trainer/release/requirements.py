"""What a network must have shown before it is released.

A network that was hardly trained can be written, signed and loaded like any other. So a release
needs scores of exactly its weights, and those must be better than what no network is needed for: a
lookup table from CT to T1, and the mean T1 of the training heads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rebrain_node.errors import RebrainError
from rebrain_node.model.card import Score
from trainer.data.dataset import digest_of
from trainer.train.loop import CHECKPOINT

#: the figure that is compared; larger is better
FIGURE: Final = "ssim"
#: names of what must be surpassed, by the command that scored them
RIVALS: Final = {"lookup table": "lookup table", "lut": "lookup table", "template": "template"}


class ReleaseError(RebrainError):
    """A network or bundle is not released; the message says why, and the remedy."""


def check_weights(scored: str | None, run: Path, command: str) -> None:
    """Refuse scores of other weights than those of the run.

    Parameters
    ----------
    scored : str or None
        SHA-256 of the checkpoint that was scored; None where the scores do not say.
    command : str
        What scores the run, for the message.

    Raises
    ------
    ReleaseError
        The scores are of another checkpoint.
    """
    if scored != digest_of(run / CHECKPOINT):
        raise ReleaseError(
            f"the scores are not of the weights in {run / CHECKPOINT}: {command} scores them"
        )


def check_better(scores: Sequence[Score], ours: str, override: str | None) -> tuple[str, ...]:
    """Refuse a network that is no better than the lookup table or the template.

    Parameters
    ----------
    scores : sequence of Score
        Of held-out subjects, all methods.
    ours : str
        Name of the network among the methods.
    override : str or None
        Why it is released all the same.

    Returns
    -------
    tuple of str
        The sentences for the model card: none where the network is better everywhere.

    Raises
    ------
    ReleaseError
        It is not better somewhere and there is no reason, or nothing was compared.
    """
    found = {(score.test, score.method): score.figures.get(FIGURE) for score in scores}
    compared = [
        (test, value, RIVALS[method], rival)
        for (test, method), rival in found.items()
        if method in RIVALS and rival is not None and (value := found.get((test, ours))) is not None
    ]
    if not compared:
        raise ReleaseError(
            f"the scores compare {ours} with neither lookup table nor template: nothing shows that "
            "the network is better than either"
        )
    worse = [
        f"SSIM {value:.3f} is not above that of the {name}, {rival:.3f} ({test})"
        for test, value, name, rival in compared
        if not value > rival
    ]
    if not worse:
        return ()
    reasons = "; ".join(worse)
    if override is None:
        raise ReleaseError(
            f"{reasons}: train longer or on more subjects, or give --override REASON, which the "
            "model card will show"
        )
    return (f"Released although {reasons}. Reason given: {override}",)
