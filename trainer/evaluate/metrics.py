"""The metrics, exactly; docs/how-to/evaluate.md says the same in words.

Volumes are (slice, row, column) in the unit in which the reference's percentiles 0.5 and 99.5 in
the head mask are 0 and 1 (`model.similarity.IntensityScale`); nothing is clipped. SSIM, PSNR
and RMSE come from that module, which the demonstration of the node shares.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from rebrain_node.model.similarity import IntensityScale, psnr_db, rmse, ssim_map
from trainer.data.dataset import Mask, Volume
from trainer.data.protocols import Case
from trainer.evaluate.continuity import stripe_ratio
from trainer.evaluate.spectrum import band_amplitudes, spectrum_error
from trainer.evaluate.tissue import tissue_correlation

LNCC_SIGMA_PX = 4.0
LEAST_BRAIN_PX = 500  # a slice with less brain has no local correlation worth the name
BINS = 100  # of the joint histogram, as scikit-image's default
_FLAT = 1e-4  # a standard deviation below this is a constant
_QUANTILES = 1001


def nrmse(image: Volume, reference: Volume, mask: Mask, extent: float) -> float:
    """RMSE in the mask over `extent`, the range of the reference in the whole mask."""
    return rmse(image, reference, mask) / extent


def mae(image: Volume, reference: Volume, mask: Mask) -> float:
    """Mean absolute error in the mask."""
    return float(np.mean(np.abs(image[mask].astype(np.float64) - reference[mask])))


def i_ssim(volume: Volume, mask: Mask) -> float:
    """Mean SSIM of adjacent slices, each pair in the union of their masks.

    Alone it says nothing: it is 1 for a constant volume. Compare it with the reference's.
    """
    pairs = []
    for first, second, union in zip(volume[:-1], volume[1:], mask[:-1] | mask[1:], strict=True):
        if union.any():
            pairs.append(float(ssim_map(first, second)[union].mean(dtype=np.float64)))
    return float(np.mean(pairs))


def matched(image: Volume, reference: Volume, mask: Mask) -> Volume:
    """Match intensities in the mask, monotonically: to each value the reference's of its rank.

    Equal values stay equal: a constant becomes the reference's median. Outside the mask the map
    goes on as it ends.
    """
    levels, counts = np.unique(image[mask], return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / counts.sum()
    at = np.linspace(0, 1, _QUANTILES)
    values = np.interp(ranks, at, np.quantile(reference[mask], at))
    return np.asarray(np.interp(image, levels, values), dtype=np.float32)


def correlation(image: Volume, reference: Volume, mask: Mask) -> float:
    """Pearson's correlation in the mask; 0 for a constant."""
    a, b = image[mask].astype(np.float64), reference[mask].astype(np.float64)
    if a.size < 2 or a.std() < _FLAT or b.std() < _FLAT:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def local_correlation(image: Volume, reference: Volume, mask: Mask) -> float:
    """LNCC of one slice: correlation in a Gaussian of sigma 4 pixels, averaged in the mask."""

    def mean(values: Volume) -> NDArray[np.float64]:
        return np.asarray(ndi.gaussian_filter(values.astype(np.float64), LNCC_SIGMA_PX))

    mean_a, mean_b = mean(image), mean(reference)
    covariance = mean(image * reference) - mean_a * mean_b
    var_a = np.maximum(mean(image * image) - mean_a**2, 1e-6)
    var_b = np.maximum(mean(reference * reference) - mean_b**2, 1e-6)
    return float((covariance / np.sqrt(var_a * var_b))[mask].mean())


def lncc(image: Volume, reference: Volume, brain: Mask) -> float:
    """Mean LNCC of the slices with more than 500 pixels of brain; 0 where there is none."""
    slices = zip(image, reference, brain, strict=True)
    found = [local_correlation(a, b, m) for a, b, m in slices if m.sum() > LEAST_BRAIN_PX]
    return float(np.mean(found)) if found else 0.0


def gradient_correlation(image: Volume, reference: Volume, mask: Mask) -> float:
    """Mean over rows and columns of the correlation of central differences in the mask."""
    found = [
        correlation(np.gradient(image, axis=axis), np.gradient(reference, axis=axis), mask)
        for axis in (1, 2)
    ]
    return float(np.mean(found))


def nmi(image: Volume, reference: Volume, mask: Mask) -> float:
    """Normalised mutual information (H(A) + H(B)) / H(A, B) in the mask, 1 to 2.

    100 x 100 bins over the ranges in the mask; 1 where one of the two is constant.
    """
    counts, _, _ = np.histogram2d(image[mask], reference[mask], bins=BINS)
    joint = counts / counts.sum()

    def entropy(share: NDArray[np.float64]) -> float:
        filled = share[share > 0]
        return float(-(filled * np.log(filled)).sum())

    together = entropy(joint.ravel())
    if together <= 0:
        return 1.0
    return (entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1))) / together


def slice_offsets(image: Volume, reference: Volume, brain: Mask) -> NDArray[np.int64]:
    """Return, for each slice of a patient, how far off the best correlated reference slice lies.

    Correlation is taken in the brain of the predicted slice. A slice that correlates with none
    is as far off as the patient has slices.
    """
    offsets = []
    for row, (plane, inside) in enumerate(zip(image, brain, strict=True)):
        found = [correlation(plane, other, inside) for other in reference]
        offsets.append(int(np.argmax(found)) - row if max(found) > 0 else len(reference))
    return np.array(offsets, dtype=np.int64)


def supratentorial(head: Mask, brain: Mask) -> Mask:
    """Return which slices lie above the tentorium: brain fills more than half of the head."""
    return np.asarray(brain.sum(axis=(1, 2)) > 0.5 * head.sum(axis=(1, 2)))


def ct2mri(image: Volume, reference: Volume, mask: Mask) -> dict[str, float]:
    """NRMSE, PSNR, SSIM and MAE as the CT2MRI code base defines them.

    Over the whole volume cropped to the head's box, background included: NRMSE divided by the
    range of the *synthetic* volume, range 1.0, SSIM with a uniform window of 7 voxels and the
    unbiased covariance, the rim of 3 voxels left out.
    """
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(mask))
    a, b = image[box].astype(np.float64), reference[box].astype(np.float64)
    everywhere = np.ones(a.shape, dtype=bool)
    extent = float(np.ptp(a))
    error = rmse(a, b, everywhere)
    return {
        "nrmse": error / extent if extent > 0 else float("inf"),
        "psnr": psnr_db(a, b, everywhere),
        "ssim": _uniform_ssim(a, b),
        "mae": float(np.abs(a - b).mean()),
    }


def _uniform_ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """SSIM with the defaults of scikit-image for a range of 1.

    Raises
    ------
    ValueError
        An axis is shorter than the window of 7.
    """
    window, rim = 7, 3
    if min(a.shape) < window:
        raise ValueError(f"the cropped volume {a.shape} is smaller than the window of 7 voxels")
    count = window**a.ndim
    mean_a, mean_b = ndi.uniform_filter(a, window), ndi.uniform_filter(b, window)
    unbiased = count / (count - 1)
    var_a = unbiased * (ndi.uniform_filter(a * a, window) - mean_a**2)
    var_b = unbiased * (ndi.uniform_filter(b * b, window) - mean_b**2)
    covariance = unbiased * (ndi.uniform_filter(a * b, window) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    values = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    return float(values[(slice(rim, -rim),) * a.ndim].mean())


Mode = Literal["standard", "ct2mri"]
SLICES = "slice_id_slices"  # how many slices of a subject were to be identified


@dataclass(frozen=True)
class Reference:
    """What a case is scored against, at the positions synthesised, (n, row, column)."""

    scale: IntensityScale  #: from the unit of the data set's target to that of the scores
    reference: Volume  #: the true MR in the unit of the scores
    head: Mask
    brain: Mask | None  #: inside the skull
    measured: Mask
    volumetric: bool  #: false for 2-D pairs: SSIM is taken within slices, and slices are identified
    i_ssim: float  #: the reference's own

    @classmethod
    def of(cls, case: Case, *, volumetric: bool) -> "Reference":
        """Take the truth of a case.

        Raises
        ------
        ValueError
            The positions synthesised hold no head, or a flat reference.
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
            i_ssim=i_ssim(reference, head),
        )


def metrics_of_volume(image: Volume, truth: Reference, mode: Mode) -> dict[str, float]:
    """Return every metric of one volume in the unit of the scores, by name."""
    found = _standard(image, truth)
    if mode == "ct2mri":
        split = [name for name in found if name.endswith(("_measured", "_filled"))]
        found = {name: found[name] for name in found if name not in split}
        found |= ct2mri(image, truth.reference, truth.head)
    own = i_ssim(image, truth.head)
    found |= {
        "i_ssim": own,
        "i_ssim_reference": truth.i_ssim,
        "i_ssim_gap": abs(own - truth.i_ssim),
        "spectrum_error": spectrum_error(image, truth.reference, truth.head),
    }
    if truth.brain is not None and truth.brain.any():
        found |= _in_brain(image, truth.reference, truth.brain, volumetric=truth.volumetric)
        if truth.volumetric and not truth.measured.all():
            ratio = stripe_ratio(image, truth.brain, truth.measured)
            found |= {} if np.isnan(ratio) else {"stripe_ratio": ratio}
        if not truth.volumetric:
            found |= _identified(image, truth.reference, truth.head, truth.brain)
    return found


def _standard(image: Volume, truth: Reference) -> dict[str, float]:
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
                f"nrmse{kind}": nrmse(image, truth.reference, mask, extent),
                f"psnr{kind}": psnr_db(image, truth.reference, mask),
                f"ssim{kind}": float(values[mask].mean(dtype=np.float64)),
                f"mae{kind}": mae(image, truth.reference, mask),
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
    alike = matched(image, reference, brain)
    values = similarity(alike, reference, volumetric=volumetric)
    return {
        "ssim_brain": float(values[brain].mean(dtype=np.float64)),
        "psnr_brain": psnr_db(alike, reference, brain),
        "brain_correlation": correlation(image, reference, brain),
        "lncc": lncc(image, reference, brain),
        "gradient_correlation": gradient_correlation(image, reference, brain),
        "nmi": nmi(image, reference, brain),
        "tissue_correlation": tissue_correlation(image, reference, brain),
        **band_amplitudes(image, reference, brain),
    }


def _identified(image: Volume, reference: Volume, head: Mask, brain: Mask) -> dict[str, float]:
    """How often the best correlated true slice is the right one, of the supratentorial slices."""
    upper = supratentorial(head, brain)
    if not upper.any():
        return {}
    apart = np.abs(slice_offsets(image, reference, brain))[upper]
    return {
        "slice_id_exact": float(np.mean(apart == 0)),
        "slice_id_within_one": float(np.mean(apart <= 1)),
        SLICES: float(apart.size),
    }
