"""What the header says of contrast, image type, age, body part and kernel, and scouts in a series.

Headers decide, so the images are empty, unless a case is marked `pixels`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from tests.field.case import Case
from tests.support.phantoms import head_ct, localizer, write

#: a change of the data sets of one series
Change = Callable[[list[Dataset]], None]

WHOLE_MM = tuple(-60.0 + 5.0 * k for k in range(28))
#: an axial reformat of a real Philips study: 4 mm every 3 mm, turned by 19 degrees in its plane
TURNED = (0.943, -0.333, 0.0, 0.333, 0.943, 0.0)
EVERY_3_MM = tuple(-66.0 + 3.0 * k for k in range(50))

PYLIDC = "github.com/notmatthancock/pylidc/issues/35"
INSPECT = "github.com/som-shahlab/INSPECT_public/issues/12"
SHANOIR = "github.com/fli-iam/shanoir-ng/issues/2407"
IMAGE_WG = "OHDSI/ImageWG, issue 10"
CONTRAST_BOLUS = "PS3.3 C.7.6.4"
IMAGE_TYPE = "PS3.3 C.8.2.1.1.1"
AGE = "PS3.5 6.2, AS; PS3.3 C.7.2.2"
KERNELS = "lists of kernels in public head CT archives"


@cache
def _template(slices_mm: tuple[float, ...], thickness_mm: float) -> tuple[Dataset, ...]:
    return tuple(
        head_ct(
            rows=4,
            columns=4,
            pixel_spacing_mm=(64.0, 64.0),
            slice_distances_mm=slices_mm,
            slice_thickness_mm=thickness_mm,
            manufacturer="SIEMENS",
        )
    )


def empty_head(
    slices_mm: tuple[float, ...] = WHOLE_MM, thickness_mm: float = 5.0, **elements: object
) -> list[Dataset]:
    """A head whose images are empty: 128 x 128 pixels of 2 mm, with elements replaced."""
    instances = copy.deepcopy(list(_template(slices_mm, thickness_mm)))
    for instance in instances:
        instance.Rows = instance.Columns = 128
        instance.PixelSpacing = [2.0, 2.0]
        instance.PixelData = bytes(2 * 128 * 128)
        _replace(instance, elements)
    return instances


def _replace(instance: Dataset, elements: dict[str, object]) -> None:
    for keyword, value in elements.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        instance[tag] = DataElement(
            tag, dictionary_VR(tag), value, validation_mode=config.IGNORE
        )  # also what breaks its VR, as scanners write it


def _another(instances: Sequence[Dataset], number: int, **elements: object) -> list[Dataset]:
    """The same study's next series, with elements replaced."""
    others = copy.deepcopy(list(instances))
    for place, instance in enumerate(others):
        instance.SeriesInstanceUID = f"1.2.826.0.1.3680043.10.999.{number}"
        instance.SOPInstanceUID = f"1.2.826.0.1.3680043.10.999.{number}.{place}"
        instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        instance.SeriesNumber = number
        _replace(instance, elements)
    return others


def _make(change: Change | None = None, **elements: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        instances = empty_head(**elements)
        if change is not None:
            change(instances)
        write(instances, folder)

    return make


def _case(group: str, name: str, situation: str, expected: str, **of: object) -> Case:
    """A case of one series whose headers decide; what `Case` does not know replaces elements."""
    known = {key: of.pop(key) for key in ("source", "sentence", "make", "pixels") if key in of}
    return Case(
        name=name,
        group=group,
        situation=situation,
        expected=expected,
        **{"make": _make(**of), **known},  # type: ignore[arg-type]
    )


def _agent(name: str, word: str, expected: str, source: str = CONTRAST_BOLUS, **of: object) -> Case:
    return _case(
        "contrast",
        f"agent-{name}",
        f"Contrast/Bolus Agent holds {word!r}.",
        expected,
        source=source,
        SpecificCharacterSet="ISO_IR 192",
        ContrastBolusAgent=word,
        **of,
    )


def _described(name: str, text: str, expected: str, source: str = PYLIDC, **of: object) -> Case:
    return _case(
        "contrast",
        f"description-{name}",
        f"Series Description is {text!r}; no element of the contrast module is there.",
        expected,
        source=source,
        SpecificCharacterSet="ISO_IR 192",
        SeriesDescription=text,
        **of,
    )


def _a_whole_and_a_part(folder: Path) -> None:
    whole = empty_head(ContrastBolusAgent="ohne KM", SeriesDescription="Kopf nativ")
    part = _another(empty_head(WHOLE_MM[:22]), 3, SeriesDescription="Head")
    write([*whole, *part], folder)


def _original_and_reformat(folder: Path) -> None:
    original = empty_head()
    reformat = _another(original, 1, ImageType=["DERIVED", "SECONDARY", "MPR"])
    write([*original, *reformat], folder)


def _scout_first(folder: Path) -> None:
    slices = head_ct(manufacturer="SIEMENS")
    (scout,) = localizer(manufacturer="SIEMENS")
    scout.SeriesInstanceUID, scout.InstanceNumber = slices[0].SeriesInstanceUID, 0
    scout.StudyInstanceUID = slices[0].StudyInstanceUID
    scout.FrameOfReferenceUID = "1.2.826.0.1.3680043.10.999.7"
    write([scout, *slices], folder)


def _bright_vessels(folder: Path) -> None:
    instances = head_ct(manufacturer="SIEMENS", vessels=True, contrast_agent="NONE")
    write(instances, folder)


def _dynamic(folder: Path) -> None:
    moments = []
    for moment in range(4):
        instances = _another(empty_head(WHOLE_MM[:16]), 5)
        for place, instance in enumerate(instances):
            instance.SOPInstanceUID = f"1.2.826.0.1.3680043.10.999.5.{moment}.{place}"
            instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
            instance.AcquisitionNumber = moment + 1
            instance.AcquisitionTime = f"10111{moment}"
        moments += instances
    write(moments, folder)


def _noisy(instances: list[Dataset]) -> None:
    for place, instance in enumerate(instances):
        instance.SliceThickness = ("4.998", "5.002")[place % 2]
        x, y, z = instance.ImagePositionPatient
        instance.ImagePositionPatient = [x, y, float(z) + (-0.004, 0.004)[place % 2]]


def _reformat(name: str, image_type: Sequence[str], kernel: str, maker: str, **of: object) -> Case:
    return _case(
        "reformat",
        f"axial-reformat-{name}",
        f"The everyday axial series is {chr(92).join(image_type)}, 4 mm every 3 mm, turned.",
        of.pop("expected", "accepted: DERIVED"),  # type: ignore[arg-type]
        source=of.pop("source", IMAGE_TYPE),
        slices_mm=EVERY_3_MM,
        thickness_mm=4.0,
        ImageType=list(image_type),
        ConvolutionKernel=kernel,
        Manufacturer=maker,
        ImageOrientationPatient=list(TURNED),
        **of,
    )


def _reformat_with_pixels(folder: Path) -> None:
    instances = head_ct(
        rows=136,
        columns=172,
        pixel_spacing_mm=(1.6, 1.6),
        orientation=TURNED,
        slice_distances_mm=(*EVERY_3_MM, EVERY_3_MM[-1] + 3.0),  # up to the vertex
        slice_thickness_mm=4.0,
        manufacturer="Philips",
        kernel="UC",
        image_type=("DERIVED", "SECONDARY", "MPR"),
    )
    write(instances, folder)


def _typed(name: str, fourth: str, expected: str, source: str = IMAGE_TYPE, **of: object) -> Case:
    return _case(
        "image-type",
        name,
        f"Image Type is ORIGINAL, PRIMARY, AXIAL, {fourth}.",
        expected,
        source=source,
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL", fourth],
        **of,
    )


def _aged(name: str, expected: str, situation: str, **elements: object) -> Case:
    return _case("age", f"age-{name}", situation, expected, source=AGE, **elements)


def _kernel(maker: str, kernel: str, expected: str) -> Case:
    name = "".join(c if c.isalnum() else "-" for c in f"{maker.split()[0]}-{kernel}".lower())
    name = name.replace("+", "plus")
    return _case(
        "kernel",
        f"kernel-{name}",
        f"{maker} writes the kernel {kernel!r}.",
        expected,
        source=KERNELS,
        Manufacturer=maker,
        ConvolutionKernel=kernel,
    )


def _part(word: str, expected: str, **of: object) -> Case:
    return _case(
        "body-part",
        f"body-part-{word.lower().replace('é', 'e').replace(' ', '-')}",
        f"Body Part Examined is {word!r}.",
        expected,
        source=IMAGE_WG,
        BodyPartExamined=word,
        **of,
    )


CONTRAST = (
    _agent("none-given", "None given", "accepted"),
    _agent("no-iv-contrast", "NO IV CONTRAST", "accepted", PYLIDC),
    _agent("german", "ohne KM", "accepted"),
    _agent("french", "SANS INJECTION", "accepted", SHANOIR),
    _agent("spanish", "s/c", "accepted"),
    _agent("italian", "senza mdc", "accepted"),
    _agent("polish", "bez kontrastu", "accepted"),
    _agent("russian", "без контраста", "accepted"),
    _agent("chinese", "平扫", "accepted"),
    _agent("japanese", "なし", "accepted"),
    _agent("zero-ml", "0 ml", "accepted"),
    _agent("not-applicable", "N/A", "accepted"),
    _agent("named", "IOMERON 300", "refused: CONTRAST", sentence="IOMERON"),
    _agent("non-ionic", "NON IONIC 350", "refused: CONTRAST"),
    _agent("with-volume-zero", "IOMERON 300", "accepted: CONTRAST", ContrastBolusVolume="0"),
    _case("contrast", "volume-alone", "Contrast/Bolus Volume is 80 ml and nothing names an agent.",
          "refused: CONTRAST", source=INSPECT, sentence="80 ml", ContrastBolusVolume="80"),
    _case("contrast", "volume-zero", "Contrast/Bolus Volume is 0.", "accepted",
          source=CONTRAST_BOLUS, ContrastBolusVolume="0"),
    _case("contrast", "route-alone", "Contrast/Bolus Route is IV.", "refused: CONTRAST",
          source=CONTRAST_BOLUS, ContrastBolusRoute="IV"),
    _case("contrast", "bolus-after-the-slices", "The bolus starts after the slices were acquired.",
          "accepted", source=CONTRAST_BOLUS, ContrastBolusStartTime="103000",
          AcquisitionTime="101112"),
    _case("contrast", "bolus-before-the-slices", "The bolus starts before the slices.",
          "refused: CONTRAST", source=CONTRAST_BOLUS, ContrastBolusStartTime="101000",
          AcquisitionTime="101112"),
    _described("post", "HEAD POST CONTRAST C+ 5.0", "refused: CONTRAST",
               sentence="POST CONTRAST"),
    _described("plus", "Head C+ 5.0", "refused: CONTRAST", sentence="C+"),
    _described("german-given", "Schädel mit KM 5.0", "refused: CONTRAST", sentence="MIT KM"),
    _described("cta", "CTA Head 5.0", "refused: CONTRAST", sentence="CTA"),
    _described("unenhanced", "Head W/O 5.0", "accepted"),
    _described("both-phases", "HEAD W AND WO", "accepted"),
    _described("post-operative", "Head post OP 5.0", "accepted"),
    _described("optimum-contrast", "DE_Head 5.0 Q34s 3 Optimum Contrast#0", "accepted"),
    _described("against-agent-none", "Head C+ 5.0", "accepted: CONTRAST",
               ContrastBolusAgent="NONE"),
    _case("contrast", "protocol-alone", "Only the protocol of the examination says CTA.",
          "accepted: CONTRAST", source=PYLIDC, ProtocolName="CTA Head"),
    Case(name="bright-vessels-against-the-header", group="contrast",
         situation="Contrast/Bolus Agent says NONE, the vessels are bright.", source=CONTRAST_BOLUS,
         expected="refused: CONTRAST", sentence="Agent (0018,0010) says none",
         make=_bright_vessels, pixels=True),
    _case("contrast", "whole-series-with-a-word-for-none",
          "A whole series says 'ohne KM'; a part of it in the study says nothing.",
          "accepted", source=CONTRAST_BOLUS, make=_a_whole_and_a_part),
)  # fmt: skip

REFORMATS = (
    _reformat("philips", ("DERIVED", "SECONDARY", "MPR"), "UC", "Philips",
              source="zfifteen/wave-crispr-signal: header of a Philips Ingenuity head study"),
    _reformat("siemens", ("DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 SPI"), "H31s", "SIEMENS"),
    _reformat("siemens-parallel", ("DERIVED", "SECONDARY", "MPR", "CSA MPR", "", "CSAPARALLEL"),
              "Hr38f", "Siemens Healthineers"),
    _reformat("ge", ("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"), "STANDARD",
              "GE MEDICAL SYSTEMS"),
    _reformat("canon", ("DERIVED", "PRIMARY", "MPR"), "FC68", "CANON_MEC"),
    Case(name="axial-reformat-whose-pixels-are-judged", group="reformat",
         situation="The same with the pixels of a head, 136 x 172.", source=IMAGE_TYPE,
         expected="accepted: DERIVED", make=_reformat_with_pixels, pixels=True),
    _case("reformat", "original-beside-a-reformat", "The study has an original series too.",
          "accepted", source=IMAGE_TYPE, make=_original_and_reformat),
    _reformat("mip", ("DERIVED", "SECONDARY", "MIP"), "UC", "Philips",
              expected="refused: DERIVED", sentence="MIP"),
    _reformat("minip", ("DERIVED", "SECONDARY", "MIN_IP"), "STANDARD", "GE MEDICAL SYSTEMS",
              expected="refused: DERIVED", sentence="MIN_IP"),
    _reformat("subtraction", ("DERIVED", "PRIMARY", "AXIAL", "SUBTRACTION"), "FC43", "TOSHIBA",
              expected="refused: DERIVED", sentence="SUBTRACTION"),
    _reformat("average", ("DERIVED", "SECONDARY", "AXIAL", "AVERAGE"), "H31s", "SIEMENS",
              expected="refused: DERIVED", sentence="AVERAGE"),
    _reformat("mip-by-description", ("DERIVED", "SECONDARY", "OTHER"), "UC", "Philips",
              expected="refused: DERIVED", sentence="MIP", SeriesDescription="Ax MIP 10mm"),
    _reformat("unknown-kernel", ("DERIVED", "SECONDARY", "MPR"), "X", "Philips",
              expected="refused: DERIVED", sentence="kernel"),
    _case("reformat", "coronal-reformat", "A coronal reformat.", "refused: DERIVED",
          source=IMAGE_TYPE, sentence="not axial", ImageType=["DERIVED", "SECONDARY", "MPR"],
          ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
)  # fmt: skip

IMAGE_TYPES = (
    _typed("virtual-monoenergetic", "VMI", "refused: SPECTRAL", sentence="VMI"),
    _typed("monoenergetic-by-energy", "MONO_70KEV", "refused: SPECTRAL", sentence="MONO_70KEV"),
    _typed("photon-counting-energy", "ME60KEV", "refused: SPECTRAL",
           "Image Types of a Siemens photon-counting study in a public report"),
    _typed("virtual-non-contrast", "VNC", "refused: IMAGE-TYPE", sentence="VNC"),
    _typed("iodine-map", "IODINE", "refused: IMAGE-TYPE"),
    _typed("effective-atomic-number", "EFF_ATOMIC_NUM", "refused: IMAGE-TYPE"),
    _typed("cerebral-blood-flow", "CBF", "refused: IMAGE-TYPE", sentence="CBF"),
    _typed("bolus-monitoring", "CT_SOM5 MON", "refused: IMAGE-TYPE",
           "a public series of bad geometry, Siemens"),
    _typed("dual-energy", "DUAL ENERGY", "accepted: SPECTRAL"),
    _typed("single-energy-of-two-tubes", "SNRG", "accepted",
           "Image Types of public Siemens lung studies: CT_SOM7 SPI DUAL, STD, SNRG, DET_AB"),
    _typed("helix", "HELIX", "accepted", "header of a public Philips study"),
    _typed("mixed", "MIXED", "accepted"),
    _typed("normalised", "NORM", "accepted"),
    _case("image-type", "projection-called-original", "An original image that says MIP.",
          "refused: DERIVED", source=IMAGE_TYPE, ImageType=["ORIGINAL", "PRIMARY", "MIP"]),
    _case("image-type", "for-processing", "Presentation Intent Type is FOR PROCESSING.",
          "refused: IMAGE-TYPE", source="Supplement 252", PresentationIntentType="FOR PROCESSING"),
    _case("image-type", "dynamic-series", "The same positions at four times.", "refused: TEMPORAL",
          source="PS3.3 C.7.6.16.2.2", sentence="4 times", make=_dynamic),
)  # fmt: skip

AGES = (
    _aged("two-digits", "refused: AGE", "A child of 8 years, written 8Y.", PatientAge="8Y"),
    _aged("small-letter", "refused: AGE", "A child of 8 years, written 008y.", PatientAge="008y"),
    _aged("blank", "refused: AGE", "A child of 8 years, written with a blank.", PatientAge="8 Y"),
    _aged("months", "refused: AGE", "A child of 96 months.", PatientAge="96M"),
    _aged("weeks", "refused: AGE", "A child of 416 weeks.", PatientAge="416W"),
    _aged("days", "refused: AGE", "A child of 2920 days.", PatientAge="2920D"),
    _aged("birth-date", "refused: AGE", "No age; born 8 years before the study.",
          PatientAge="", PatientBirthDate="20180101", StudyDate="20260102"),
    _aged("birth-date-of-an-adult", "accepted", "No age; born 60 years before the study.",
          PatientAge="", PatientBirthDate="19660101", StudyDate="20260102"),
    _aged("zero", "accepted: AGE-UNKNOWN", "000Y and no birth date, as de-identified.",
          PatientAge="000Y", PatientBirthDate=""),
    _aged("absent", "accepted: AGE-UNKNOWN", "Neither age nor birth date.",
          PatientAge="", PatientBirthDate=""),
)  # fmt: skip

OTHERS = (
    Case(name="scout-inside-the-axial-series", group="scout",
         situation="A scout with another frame of reference is the first image of the series.",
         source="github.com/dgobbi/vtk-dicom/issues/98", expected="accepted: LOCALIZER-SET-ASIDE",
         make=_scout_first, pixels=True, sentence="1 of 25"),
    _case("noise", "thickness-with-noise", "Slices of 4.998 and 5.002 mm, positions likewise.",
          "accepted", source="icometrix/dicom2nifti, reports of noisy spacing",
          make=_make(_noisy)),
    *(_part(word, "accepted: BODY-PART")
      for word in ("KOPF", "CABEZA", "TETE", "TESTA", "SCHAEDEL", "CEREBRO", "HOOFD", "GLOWA")),
    _part("UNKNOWN", "accepted"),
    _part("CHEST", "refused: NOT-HEAD", sentence="series.body_parts"),
    _part("NECK", "refused: NOT-HEAD", sentence="NECK"),
    _part("HALS", "refused: NOT-HEAD"),
    _kernel("GE MEDICAL SYSTEMS", "STD+", "accepted"),
    _kernel("GE MEDICAL SYSTEMS", "SOFT#", "accepted"),
    _kernel("GE MEDICAL SYSTEMS", "BONEPLUS2", "refused: KERNEL"),
    _kernel("GE MEDICAL SYSTEMS", "HD LUNG", "refused: KERNEL"),
    _kernel("Siemens Healthineers", "Hr40f", "accepted"),
    _kernel("Siemens Healthineers", "Qr32d", "accepted"),
    _kernel("Siemens Healthineers", "Br59d", "refused: KERNEL"),
    _kernel("Philips", "SC", "accepted"),
    _kernel("Philips", "YB", "refused: KERNEL"),
    _kernel("CANON_MEC", "FC26", "accepted"),
    _kernel("UIH", "H_VSHARP_C", "refused: KERNEL"),
)  # fmt: skip

CASES = (*CONTRAST, *REFORMATS, *IMAGE_TYPES, *AGES, *OTHERS)
