"""What the figures are called, which way is better, and how they are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

Better = Literal["higher", "lower", "closer"]
_ARROWS: Final[dict[Better, str]] = {"higher": " ↑", "lower": " ↓", "closer": ""}
_PLACES: Final = {"measured": "at measured positions", "filled": "at filled positions"}


@dataclass(frozen=True)
class Metric:
    """One figure of model.md section 6."""

    label: str
    better: Better  #: "closer": only its gap to the reference says anything
    digits: int
    meaning: str

    @property
    def heading(self) -> str:
        """Label with an arrow towards the better end."""
        return self.label + _ARROWS[self.better]


_METRICS: Final = {
    "slice_id_exact": Metric(
        "slice-ID exact",
        "higher",
        3,
        "share of supratentorial slices whose best correlated real slice is the right one",
    ),
    "slice_id_within_one": Metric(
        "slice-ID ± 1", "higher", 3, "the same, the right one or its neighbour"
    ),
    "slice_id_slices": Metric(
        "supratentorial slices", "closer", 0, "how many slices of a subject were to be identified"
    ),
    "brain_correlation": Metric(
        "brain corr.", "higher", 3, "Pearson's correlation inside the skull"
    ),
    "lncc": Metric("LNCC", "higher", 3, "local correlation, Gaussian of sigma 4 pixels"),
    "gradient_correlation": Metric(
        "gradient corr.", "higher", 3, "Pearson's correlation of the gradients, inside the skull"
    ),
    "nmi": Metric("NMI", "higher", 3, "normalised mutual information, inside the skull"),
    "ssim_brain": Metric(
        "SSIM, brain",
        "higher",
        3,
        "SSIM inside the skull after monotone matching of brightness to the reference",
    ),
    "psnr_brain": Metric("PSNR, brain (dB)", "higher", 2, "PSNR of the same"),
    "nrmse": Metric(
        "NRMSE", "lower", 4, "root-mean-square error over the range of the reference in the head"
    ),
    "psnr": Metric("PSNR (dB)", "higher", 2, "-20 log10 of the root-mean-square error"),
    "ssim": Metric("SSIM", "higher", 4, "Gaussian sigma 1.5, window 11, range 1, in the head"),
    "mae": Metric("MAE", "lower", 4, "mean absolute error, head, range of the reference = 1"),
    "i_ssim": Metric(
        "I-SSIM",
        "closer",
        4,
        "mean SSIM of adjacent slices; largest for a constant volume, so judged by its gap alone",
    ),
    "i_ssim_reference": Metric("I-SSIM, reference", "closer", 4, "I-SSIM of the real MR"),
    "i_ssim_gap": Metric(
        "I-SSIM gap", "lower", 4, "distance of I-SSIM from that of the real MR, per subject"
    ),
    "spectrum_error": Metric(
        "spectrum error", "lower", 3, "error of the radial power spectrum: texture"
    ),
}


def metric(name: str) -> Metric:
    """Look a metric up by its name in the JSON; one that is unknown is shown under its name."""
    if name in _METRICS:
        return _METRICS[name]
    stem, _, place = name.rpartition("_")
    if place in _PLACES and stem in _METRICS:
        whole = _METRICS[stem]
        return Metric(
            f"{whole.label}, {place}",
            whole.better,
            whole.digits,
            f"{whole.meaning}, {_PLACES[place]}",
        )
    return Metric(name.replace("_", " "), "closer", 4, "")


def number(value: float, digits: int) -> str:
    """Write a figure; a dash where there is none."""
    # + 0.0 turns the negative zero that rounding leaves into zero
    return "-" if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"
