"""How slices lie in what hospitals send: passes, pairs, cut ends, noise in numbers, scales."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from tests.field.case import Case
from tests.support.phantoms import PhantomSpec, head_ct, write

Change = Callable[[list[Dataset]], None]

PLACES = tuple(-60.0 + 6.0 * k for k in range(24))
BETWEEN = tuple(-57.0 + 6.0 * k for k in range(24))
EMPTY = {"table": False}  #: headers alone are judged


def study(change: Change | None = None, **phantom: object) -> Callable[[Path], None]:
    """Make a study of one series from a phantom that is changed afterwards."""

    def make(folder: Path) -> None:
        instances = head_ct(**{"manufacturer": "SIEMENS", **phantom})
        if change is not None:
            change(instances)
        write(instances, folder)

    return make


def acquired(*counts: int) -> Change:
    """Number the acquisitions, each of so many instances in the order of the phantom."""

    def change(instances: list[Dataset]) -> None:
        numbers = np.repeat(np.arange(len(counts)), counts)
        for instance, number in zip(instances, numbers, strict=True):
            instance.AcquisitionNumber = int(number) + 1

    return change


def timed(*counts: int, seconds: int = 2) -> Change:
    """Let each acquisition begin two minutes after the one before, its slices 2 s apart."""

    def change(instances: list[Dataset]) -> None:
        begins = np.repeat(np.arange(len(counts)) * 2, counts)
        for place, (instance, minutes) in enumerate(zip(instances, begins, strict=True)):
            after = place * seconds
            instance.AcquisitionTime = f"10{10 + minutes + after // 60:02d}{after % 60:02d}"

    return change


def without_numbers(instances: list[Dataset]) -> None:
    """Leave nothing by which passes could be told apart."""
    for instance in instances:
        instance.InstanceNumber = 1


PASSES = (
    Case(
        name="two-passes-interleaved-by-acquisition-number",
        group="two passes",
        situation="A second pass lies between the slices of the first, told by its number.",
        source="PS3.3 C.7.6.1: Acquisition Number (0020,0012)",
        expected="accepted: GEOM-PASS-CHOSEN",
        make=study(acquired(24, 24), slice_distances_mm=PLACES + BETWEEN),
        sentence="24 of 48 slices",
        pixels=True,
    ),
    Case(
        name="two-passes-at-the-same-places-by-time",
        group="two passes",
        situation="The scan was repeated at the same places; only the times differ.",
        source="PS3.3 C.7.6.1: Acquisition Time (0008,0032)",
        expected="accepted: GEOM-PASS-CHOSEN",
        make=study(timed(24, 24, seconds=0), slice_distances_mm=PLACES + PLACES),
        sentence="the time of acquisition",
    ),
    Case(
        name="two-passes-each-slice-with-its-own-time",
        group="two passes",
        situation="Slices were acquired one by one, up and then down again 1.3 mm beside them.",
        source="PS3.3 C.7.6.1: Acquisition Time (0008,0032)",
        expected="accepted: GEOM-PASS-CHOSEN",
        make=study(
            timed(24, 24),
            slice_distances_mm=PLACES + tuple(p + 1.3 for p in reversed(PLACES)),
        ),
    ),
    Case(
        name="two-passes-at-the-same-places-by-instance-number",
        group="two passes",
        situation="Every slice is there twice, and only the instance numbers tell which is first.",
        source="PS3.3 C.7.6.1: Instance Number (0020,0013)",
        expected="accepted: GEOM-PASS-CHOSEN",
        make=study(slice_distances_mm=PLACES + PLACES),
        sentence="Instance Number",
    ),
    Case(
        name="two-passes-that-nothing-tells-apart",
        group="two passes",
        situation="Every slice is there twice, with the same numbers and times.",
        source="PS3.3 C.7.6.1",
        expected="refused: GEOM-TWO-PASSES",
        make=study(without_numbers, slice_distances_mm=PLACES + PLACES),
        sentence="send one pass as a series of its own",
    ),
    Case(
        name="two-passes-neither-of-which-is-whole",
        group="two passes",
        situation="The scan broke off and was begun anew from the middle, overlapping by 12 mm.",
        source="PS3.3 C.7.6.1: Acquisition Number (0020,0012)",
        expected="refused: GEOM-TWO-PASSES",
        make=study(
            acquired(14, 14),
            slice_distances_mm=PLACES[:14] + tuple(p - 3.0 for p in (*PLACES[11:], 84.0)),
        ),
        sentence="the longest covers 83 mm",
    ),
    Case(
        name="two-passes-of-two-kernels",
        group="two passes",
        situation="Two reconstructions of one scan in one series, soft and softer.",
        source="PS3.3 C.8.2.1: Convolution Kernel (0018,1210)",
        expected="refused: GEOM-TWO-PASSES",
        make=study(
            lambda instances: [
                setattr(instance, "ConvolutionKernel", "H20s") for instance in instances[24:]
            ],
            slice_distances_mm=PLACES + PLACES,
        ),
        sentence="reconstruction kernel",
    ),
    Case(
        name="second-pass-broken-off",
        group="two passes",
        situation="A whole scan, and a second one that was broken off after eight slices.",
        source="PS3.3 C.7.6.1: Acquisition Number (0020,0012)",
        expected="accepted: GEOM-PASS-CHOSEN",
        make=study(acquired(24, 8), slice_distances_mm=PLACES + BETWEEN[:8]),
    ),
    Case(
        name="two-ranges-one-above-the-other",
        group="two passes",
        situation="Base and vertex were scanned as two acquisitions, one above the other.",
        source="PS3.3 C.7.6.1: Acquisition Number (0020,0012)",
        expected="accepted",
        make=study(acquired(10, 14)),
    ),
    Case(
        name="two-thicknesses-one-above-the-other",
        group="two passes",
        situation="The base in slices of 3 mm, the vertex in 6 mm, as two acquisitions.",
        source="PS3.3 C.7.6.1: Acquisition Number (0020,0012)",
        expected="accepted",
        make=study(
            acquired(20, 14),
            slice_distances_mm=tuple(-60.0 + 3.0 * k for k in range(20))
            + tuple(1.5 + 6.0 * k for k in range(14)),
            slice_thickness_mm=(3.0,) * 20 + (6.0,) * 14,
        ),
    ),
    Case(
        name="every-slice-an-acquisition",
        group="two passes",
        situation="A sequential scanner counts an acquisition for every slice.",
        source="PS3.3 C.7.6.1: Acquisition Number (0020,0012)",
        expected="accepted",
        make=study(acquired(*(1,) * 24)),
    ),
    Case(
        name="one-slice-repeated",
        group="two passes",
        situation="One slice was taken twice.",
        source="review of refusals",
        expected="refused: GEOM-DUPLICATE",
        make=study(acquired(24, 1), slice_distances_mm=PLACES + PLACES[9:10]),
        sentence="1 of 25 slices",
    ),
)

ENDS = (
    Case(
        name="top-not-arrived",
        group="partial",
        situation="The upper third of the series is missing.",
        source="mercure-imaging/mercure#32",
        expected="accepted: INCOMPLETE",
        make=study(slice_distances_mm=PLACES[:16]),
        pixels=True,
        sentence="the top of the head is cut off",
    ),
    Case(
        name="top-two-slices-missing",
        group="partial",
        situation="The two uppermost slices with brain are missing.",
        source="mercure-imaging/mercure#45",
        expected="accepted: INCOMPLETE",
        make=study(slice_distances_mm=PLACES[:21]),
        pixels=True,
        sentence="up to the vertex",
    ),
    Case(
        name="half-a-head",
        group="partial",
        situation="The lower half alone was sent: short by its header and cut in its pixels.",
        source="mercure-imaging/mercure#32",
        expected="accepted: INCOMPLETE",
        make=study(slice_distances_mm=PLACES[:13]),
        pixels=True,
    ),
    Case(
        name="base-not-arrived",
        group="partial",
        situation="The lower third of the series is missing.",
        source="mercure-imaging/mercure#45",
        expected="accepted: INCOMPLETE",
        make=study(slice_distances_mm=PLACES[8:]),
        pixels=True,
        sentence="the bottom of the head is cut off",
    ),
)


def in_pairs(
    header_mm: Callable[[int], float], image_mm: Callable[[int], float], numbers: bool = True
) -> Callable[[Path], None]:
    """Make a tilted series of pairs, shifted along the columns in the header and in the images.

    The functions give the shift of each slice, mm, against a straight stack.
    """

    def make(folder: Path) -> None:
        straight = {"manufacturer": "SIEMENS", "gantry_tilt_deg": 15.0, "table": False}
        column = np.array([0.0, np.cos(np.radians(15.0)), np.sin(np.radians(15.0))])
        instances, heads = [], {}
        for place in range(len(PLACES)):
            moved = tuple(-image_mm(place) * column)
            if moved not in heads:
                spec = PhantomSpec(**straight, offset_mm=moved)
                heads[moved] = head_ct(spec, slice_distances_mm=PLACES)
            one = heads[moved][place]
            position = np.array(one.ImagePositionPatient, dtype=float) + header_mm(place) * column
            one.ImagePositionPatient = [f"{value:.4f}" for value in position]
            one.AcquisitionNumber = 1 + place // 2 if numbers else 1
            instances.append(one)
        write(instances, folder)

    return make


PAIRS = (
    Case(
        name="pairs-placed-straight-by-the-header",
        group="pairs",
        situation="Two slices a rotation with tilt; the header shifts each slice as if alone.",
        source="PS3.3 C.7.6.2.1.1, C.8.2.1 Gantry/Detector Tilt",
        expected="accepted: GEOM-PAIRS-RECENTRED",
        make=in_pairs(lambda k: 0.0, lambda k: 3.2 * (k % 2)),
        pixels=True,
        sentence="3.2 mm",
    ),
    Case(
        name="pairs-placed-in-steps-by-the-header",
        group="pairs",
        situation="Two slices a rotation with tilt; the header shifts what the images do not.",
        source="PS3.3 C.7.6.2.1.1, C.8.2.1 Gantry/Detector Tilt",
        expected="accepted: GEOM-PAIRS-RECENTRED",
        make=in_pairs(lambda k: -3.2 * (k % 2), lambda k: 0.0),
        pixels=True,
    ),
    Case(
        name="pairs-placed-rightly",
        group="pairs",
        situation="Two slices a rotation with tilt, in steps in the header and in the images.",
        source="PS3.3 C.7.6.2.1.1, C.8.2.1 Gantry/Detector Tilt",
        expected="accepted",
        make=in_pairs(lambda k: -3.2 * (k % 2), lambda k: -3.2 * (k % 2)),
        pixels=True,
    ),
    Case(
        name="pairs-shifted-by-differing-amounts",
        group="pairs",
        situation="The pairs lie beside each other by amounts that differ.",
        source="PS3.3 C.7.6.2.1.1",
        expected="refused: GEOM-PAIRS",
        make=in_pairs(lambda k: 0.0, lambda k: 8.0 * (k // 2 % 2) + 3.0 * (k // 4 % 2)),
        pixels=True,
        sentence="without tilt",
    ),
    Case(
        name="pairs-without-acquisition-numbers",
        group="pairs",
        situation="As the first, but nothing says which slices are a pair.",
        source="PS3.3 C.7.6.1: Acquisition Number (0020,0012)",
        expected="refused: MOTION",
        make=in_pairs(lambda k: 0.0, lambda k: 3.2 * (k % 2), numbers=False),
        pixels=True,
    ),
    Case(
        name="pairs-of-a-patient-who-moved",
        group="pairs",
        situation="A dual-slice scanner; the patient moved once, half way up.",
        source="PS3.3 C.7.6.1: Acquisition Number (0020,0012)",
        expected="refused: MOTION",
        make=in_pairs(lambda k: 0.0, lambda k: 3.2 * (k % 2) + 8.0 * (k >= 12)),
        pixels=True,
        sentence="the patient moved",
    ),
)


def padded(value: int, limit: int | None = None) -> Change:
    """Declare a padding value, and a range where ``limit`` is given."""

    def change(instances: list[Dataset]) -> None:
        for instance in instances:
            instance.add_new("PixelPaddingValue", "SS", value)
            if limit is not None:
                instance.add_new("PixelPaddingRangeLimit", "SS", limit)

    return change


def windowed(low_hu: float, high_hu: float, levels: int | None = 256) -> Change:
    """Clip to a window, to so many grey levels, and store the result in HU again."""

    def change(instances: list[Dataset]) -> None:
        for instance in instances:
            hu = instance.pixel_array + float(instance.RescaleIntercept)
            hu = np.clip(hu, low_hu, high_hu)
            if levels is not None:
                step = (high_hu - low_hu) / (levels - 1)
                hu = np.rint((hu - low_hu) / step) * step + low_hu
            stored = np.rint(hu - float(instance.RescaleIntercept))
            instance.PixelData = stored.astype("<i2").tobytes()

    return change


SCALES = (
    Case(
        name="padding-value-is-water",
        group="padding",
        situation="Pixel Padding Value names the stored value of water.",
        source="PS3.3 C.7.5.1.1.2; TesterTi/LIDCToolbox#9",
        expected="accepted: HU-PADDING",
        make=study(padded(1024)),
        pixels=True,
        sentence="0 HU",
    ),
    Case(
        name="padding-range-reaches-into-tissue",
        group="padding",
        situation="Pixel Padding Range Limit opens the padding as far as brain.",
        source="PS3.3 C.7.5.1.1.2",
        expected="accepted: HU-PADDING",
        make=study(padded(-2000, 1064)),
        pixels=True,
        sentence="40 HU",
    ),
    Case(
        name="padding-below-air",
        group="padding",
        situation="Pixel Padding Value is below air, as usual.",
        source="PS3.3 C.7.5.1.1.2",
        expected="accepted",
        make=study(padded(-2000, -976), padding=-2000, declare_padding=False),
        pixels=True,
    ),
    Case(
        name="padding-value-written-twice",
        group="padding",
        situation="Pixel Padding Value holds the same number twice.",
        source="pydicom/pydicom#1661",
        expected="accepted",
        make=study(
            lambda instances: [
                instance.add_new("PixelPaddingValue", "SS", [-2000, -2000])
                for instance in instances
            ],
            padding=-2000,
            declare_padding=False,
        ),
        pixels=True,
    ),
    Case(
        name="rescale-slope-written-twice",
        group="scale",
        situation="Rescale Slope holds the same number twice.",
        source="pydicom/pydicom#1661",
        expected="accepted",
        make=study(
            lambda instances: [setattr(i, "RescaleSlope", ["1", "1"]) for i in instances],
        ),
        pixels=True,
    ),
    Case(
        name="copy-of-8-bits-stretched-back",
        group="scale",
        situation="Windowed to 8 bits from -1000 to 1000 HU and stretched back to HU.",
        source="ivmartel/dwv#80; PS3.3 C.8.2.1.1.5",
        expected="refused: HU",
        make=study(windowed(-1000.0, 1000.0), noise_hu=12.0),
        pixels=True,
        sentence="8 bits",
    ),
    Case(
        name="copy-of-8-bits-over-the-whole-scale",
        group="scale",
        situation="Reduced to 8 bits over all of the scale: grey and white matter share a step.",
        source="PS3.3 C.8.2.1.1.5",
        expected="refused: HU",
        make=study(windowed(-1024.0, 3071.0), noise_hu=12.0),
        pixels=True,
        sentence="8 bits",
    ),
    Case(
        name="copy-windowed-with-all-its-bits",
        group="scale",
        situation="Clipped at 1000 HU: all dense bone lies at the end of the window.",
        source="PS3.3 C.8.2.1.1.5",
        expected="refused: HU",
        make=study(windowed(-1000.0, 1000.0, levels=None), noise_hu=40.0),
        pixels=True,
        sentence="windowed up to 1000 HU",
    ),
)


def displaced(rows: Callable[[int], tuple[float, float, float]]) -> Change:
    """Add to the position of each slice."""

    def change(instances: list[Dataset]) -> None:
        for place, instance in enumerate(instances):
            position = np.array(instance.ImagePositionPatient, dtype=float) + rows(place)
            instance.ImagePositionPatient = [f"{value:.3f}" for value in position]

    return change


def thickness(instances: list[Dataset]) -> None:
    """Write 5.998 and 6.002 mm in turn, as thickness and as distance."""
    for place, instance in enumerate(instances):
        instance.SliceThickness = ("5.998", "6.002")[place % 2]


def turning_cosines(instances: list[Dataset]) -> None:
    """Round the cosines of a tilted stack to three digits and to four, in turn."""
    for place, instance in enumerate(instances):
        instance.ImageOrientationPatient = [
            f"{float(cosine):.{3 + place % 2}f}" for cosine in instance.ImageOrientationPatient
        ]


NOISE = (
    Case(
        name="thickness-and-distance-with-noise",
        group="noise",
        situation="Slices of 5.998 and 6.002 mm in turn, positions rounded to 0.1 mm.",
        source="icometrix/dicom2nifti#36",
        expected="accepted",
        make=study(
            lambda instances: (
                thickness(instances),
                displaced(lambda k: (0.0, 0.0, 0.04 * (-1) ** k))(instances),
            )
        ),
    ),
    Case(
        name="cosines-rounded-in-turn",
        group="noise",
        situation="Direction cosines of three and of four digits in turn, with tilt.",
        source="InsightSoftwareConsortium/ITK#1042",
        expected="accepted",
        make=study(turning_cosines, gantry_tilt_deg=10.5),
    ),
    Case(
        name="slices-repeated-with-noise",
        group="noise",
        situation="Two slices lie 0.12 mm from two others: the same places, within the noise.",
        source="dicom2nifti: slice increment",
        expected="refused: GEOM-DUPLICATE",
        make=study(slice_distances_mm=(*PLACES, PLACES[5] + 0.12, PLACES[9] - 0.12)),
        sentence="2 of 26 slices",
    ),
    Case(
        name="one-slice-a-little-off",
        group="noise",
        situation="One slice lies 0.4 mm above its place.",
        source="dicom2nifti: slice increment",
        expected="refused: GEOM-SPACING",
        make=study(displaced(lambda k: (0.0, 0.0, 0.4 * (k == 11)))),
        sentence="6.40 mm lie between slices 11 and 12, where 6.00 mm are usual",
    ),
    Case(
        name="distance-changes-a-little",
        group="noise",
        situation="The upper half lies in steps of 6.3 mm instead of 6.",
        source="dicom2nifti: slice increment",
        expected="refused: GEOM-SPACING",
        make=study(displaced(lambda k: (0.0, 0.0, 0.3 * max(0, k - 12)))),
        sentence="6.30 mm",
    ),
    Case(
        name="every-second-slice-missing-above",
        group="noise",
        situation="In the upper half every second slice is missing.",
        source="dicom2nifti: slice increment",
        expected="refused: GEOM-GAP",
        make=study(slice_distances_mm=PLACES[:12] + PLACES[13::2]),
        sentence="at least one slice is missing",
    ),
    Case(
        name="one-slice-of-another-thickness",
        group="noise",
        situation="One slice says 3 mm thickness among slices of 5 mm, evenly spaced.",
        source="review of refusals",
        expected="refused: GEOM-SPACING",
        make=study(slice_thickness_mm=(5.0,) * 9 + (3.0,) + (5.0,) * 14),
        sentence="slice 10 is 3 mm thick",
    ),
)


def of_two(*, second_kernel: str = "H31s") -> Callable[[Path], None]:
    """Make a thick series with metal and a thinner one without, in one study."""

    def make(folder: Path) -> None:
        study(metal=True, slice_thickness_mm=6.0)(folder / "first")
        study(series_number=3, series_description="Head 5.0 thin", kernel=second_kernel)(
            folder / "second"
        )

    return make


CHOICES = (
    Case(
        name="preferred-series-shows-metal-the-next-does-not",
        group="second choice",
        situation="The thick series fails in its pixels; a thinner one of the study would do.",
        source="PS3.3 A.3: a study holds several reconstructions",
        expected="accepted: SECOND-CHOICE",
        make=of_two(),
        pixels=True,
        sentence="series 2 of the study was tried first and was refused as METAL",
    ),
    Case(
        name="preferred-series-shows-metal-the-next-is-sharp",
        group="second choice",
        situation="The thick series fails in its pixels; the other has a sharp kernel.",
        source="PS3.3 A.3: a study holds several reconstructions",
        expected="refused: METAL",
        make=of_two(second_kernel="H70h"),
        pixels=True,
    ),
)

CASES = CHOICES + PASSES + ENDS + PAIRS + SCALES + NOISE
