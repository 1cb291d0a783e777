"""What the ReBrain paper printed, for the few cases in which it may stand beside our figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from trainer.evaluate.results import Document

PaperData = Literal["SynthRAD2023", "BraTS"]
Printed = Mapping[str, Mapping[str, float]]  #: by method, by metric

_COLUMNS: Final = ("nrmse", "psnr", "ssim", "i_ssim")


def _rows(**rows: tuple[float, float, float, float]) -> Printed:
    return {name: dict(zip(_COLUMNS, values, strict=True)) for name, values in rows.items()}


#: Tables 1 and 6: half-resolution input
TABLE_1: Final[Mapping[PaperData, Printed]] = {
    "SynthRAD2023": _rows(
        MaskGAN=(0.1526, 17.685, 0.5883, 0.9093),
        CT2MRI=(0.1138, 19.293, 0.6015, 0.9484),
        DualApproxBridge=(0.1093, 18.178, 0.6162, 0.9382),
        I3Net=(0.1653, 11.775, 0.5581, 0.9407),
        ALDM=(0.1336, 17.561, 0.6266, 0.9368),
        mDAUNet=(0.1069, 18.662, 0.6331, 0.9466),
        ReBrain=(0.1054, 20.759, 0.6682, 0.9662),
    ),
    "BraTS": _rows(
        MaskGAN=(0.1035, 20.171, 0.7028, 0.9215),
        CT2MRI=(0.0643, 23.844, 0.8535, 0.9489),
        DualApproxBridge=(0.0706, 24.510, 0.8419, 0.9404),
        I3Net=(0.1502, 18.914, 0.8074, 0.9530),
        ALDM=(0.0808, 21.921, 0.7930, 0.9544),
        mDAUNet=(0.0602, 24.646, 0.8378, 0.9597),
        ReBrain=(0.0551, 25.607, 0.8887, 0.9575),
    ),
}
#: Table 2: the objective
TABLE_2: Final[Mapping[PaperData, Printed]] = {
    "SynthRAD2023": {
        "raw objective": {"nrmse": 0.1239, "psnr": 19.103, "ssim": 0.6427, "i_ssim": 0.9558},
        "directional objective": TABLE_1["SynthRAD2023"]["ReBrain"],
    }
}
#: Table 4: control. The paper prints an NRMSE of 0.5939 without it, a slip for 0.0594.
TABLE_4: Final[Mapping[PaperData, Printed]] = {
    "BraTS": {
        "without control": {"nrmse": 0.0594, "psnr": 24.571, "ssim": 0.8460, "i_ssim": 0.9237},
        "with control": TABLE_1["BraTS"]["ReBrain"],
    }
}


def same_data(origin: str, protocol: str) -> PaperData | None:
    """Tell which of the paper's data sets an evaluation used, if any.

    Parameters
    ----------
    origin : str
        What the data set says of where it comes from.
    protocol : str
        The paper printed half resolution alone, `decimate:2`.
    """
    if protocol != "decimate:2":
        return None
    if "synthrad2023" in origin.lower():
        return "SynthRAD2023"
    return "BraTS" if "brats" in origin.lower() else None


def paper_data(document: Document) -> PaperData | None:
    """Tell which of the paper's data sets this evaluation used, if any."""
    dataset = document["dataset"]
    return same_data(f"{dataset['name']} {dataset['origin']}", document["protocol"])
