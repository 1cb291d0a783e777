"""All figures of one volume drawn, held against its truth."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rebrain_node.model.similarity import IntensityScale, psnr_db, ssim_map
from trainer.data.protocols import Case
from trainer.evaluate import metrics

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Mode = Literal["standard", "ct2mri"]
SLICES = "slice_id_slices"  # how many slices of a subject were to be identified


@dataclass(frozen=True)
class Truth:
    """What a case is scored against, at the positions drawn, (drawn, row, column).

    Attributes
    ----------
    scale : IntensityScale
        From the unit of the data set's target to that of the scores.
    reference : Volume
        The true MR in the unit of the scores.
    brain : Mask or None
        Inside the skull.
    volumetric : bool
        False for 2-D pairs: SSIM is taken within slices, and slices are identified.
    i_ssim : float
        The reference's own.
    """

    scale: IntensityScale
    reference: Volume
    head: Mask
    brain: Mask | None
    measured: Mask
    volumetric: bool
    i_ssim: float

    @classmethod
    def of(cls, case: Case, *, volumetric: bool) -> "Truth":
        """Take the truth of a case.

        Raises
        ------
        ValueError
            The positions drawn hold no head, or a flat reference.
        """
        subject, rows = case.subject, case.rows
        head = subject.mask[rows]
        scale = IntensityScale.of(subject.target[rows], head)
        reference = scale.map(subject.target[rows])
        return cls(
            scale=scale,
            reference=reference,
            head=head,
            brain=None if subject.brain is None else subject.brain[rows] & head,
            measured=case.measured,
            volumetric=volumetric,
            i_ssim=metrics.i_ssim(reference, head),
        )


def figures(image: Volume, truth: Truth, mode: Mode) -> dict[str, float]:
    """Return every metric of one volume in the unit of the scores, by name."""
    found = _standard(image, truth)
    if mode == "ct2mri":
        split = [name for name in found if name.endswith(("_measured", "_filled"))]
        found = {name: found[name] for name in found if name not in split}
        found |= metrics.ct2mri(image, truth.reference, truth.head)
    own = metrics.i_ssim(image, truth.head)
    found |= {
        "i_ssim": own,
        "i_ssim_reference": truth.i_ssim,
        "i_ssim_gap": abs(own - truth.i_ssim),
        "spectrum_error": metrics.spectrum_error(image, truth.reference, truth.head),
    }
    if truth.brain is not None and truth.brain.any():
        found |= _in_brain(image, truth.reference, truth.brain, volumetric=truth.volumetric)
        if not truth.volumetric:
            found |= _identified(image, truth.reference, truth.head, truth.brain)
    return found


def _standard(image: Volume, truth: Truth) -> dict[str, float]:
    """NRMSE, PSNR, SSIM and MAE, over all positions and by kind of position."""
    extent = float(np.ptp(truth.reference[truth.head]))
    values = similarity(image, truth.reference, volumetric=truth.volumetric)
    kinds = {"": np.ones_like(truth.measured)}
    if not truth.measured.all():
        kinds |= {"_measured": truth.measured, "_filled": ~truth.measured}
    found: dict[str, float] = {}
    for kind, chosen in kinds.items():
        mask = truth.head & chosen[:, None, None]
        if mask.any():
            found |= {
                f"nrmse{kind}": metrics.nrmse(image, truth.reference, mask, extent),
                f"psnr{kind}": psnr_db(image, truth.reference, mask),
                f"ssim{kind}": float(values[mask].mean(dtype=np.float64)),
                f"mae{kind}": metrics.mae(image, truth.reference, mask),
            }
    return found


def similarity(image: Volume, reference: Volume, *, volumetric: bool) -> Volume:
    """Return the map of SSIM: in three dimensions, or within each slice of 2-D pairs."""
    if volumetric:
        return np.asarray(ssim_map(image, reference))
    return np.stack([ssim_map(a, b) for a, b in zip(image, reference, strict=True)])


def _in_brain(
    image: Volume, reference: Volume, brain: Mask, *, volumetric: bool
) -> dict[str, float]:
    """Scores for which the contrast of a patient's T1 does not count."""
    alike = metrics.matched(image, reference, brain)
    values = similarity(alike, reference, volumetric=volumetric)
    return {
        "ssim_brain": float(values[brain].mean(dtype=np.float64)),
        "psnr_brain": psnr_db(alike, reference, brain),
        "brain_correlation": metrics.correlation(image, reference, brain),
        "lncc": metrics.lncc(image, reference, brain),
        "gradient_correlation": metrics.gradient_correlation(image, reference, brain),
        "nmi": metrics.nmi(image, reference, brain),
    }


def _identified(image: Volume, reference: Volume, head: Mask, brain: Mask) -> dict[str, float]:
    """How often the best correlated true slice is the right one, of the supratentorial slices."""
    upper = metrics.supratentorial(head, brain)
    if not upper.any():
        return {}
    apart = np.abs(metrics.slice_offsets(image, reference, brain))[upper]
    return {
        "slice_id_exact": float(np.mean(apart == 0)),
        "slice_id_within_one": float(np.mean(apart <= 1)),
        SLICES: float(apart.size),
    }
