"""One head study as the scanners of seven vendors write it: a value, and where it was seen.

Every value that is not the phantom's own names its public source: a file that was read, a printed
header, a vendor's conformance statement, a clause of the standard, or code that tells such series
apart. What no source settles is not written; `Scanner.left_out` says what and why. The writer
knows nothing of vendors: it scans the phantom of `tests.support.phantoms` in the shape that the
table names, with small matrices, and then sets what the table says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, XRayRadiationDoseSRStorage

from tests.support.phantoms import PhantomSpec, head_ct

#: value of an attribute (None: the element is absent) and the key of its source
Sourced = tuple[object, str]
Attributes = Mapping[str, Sourced]
Shape = Literal["axial", "coronal", "lateral", "frontal", "report"]

#: stands for the distance of the slices, which the phantom decides
STEP: Final = "distance of the slices"

SOURCES: Final[Mapping[str, str]] = {
    "ps3.3-axial": "PS3.3 C.8.2.1.1.1: value 3 is AXIAL for any CT cross-section",
    "ps3.3-localizer": "PS3.3 C.8.2.1.1.1: value 3 is LOCALIZER for a CT localizer",
    "ps3.3-capture": "PS3.3 A.8.1.3: a Secondary Capture has no CT Image and no Image Plane module",
    "ps3.3-dose": "PS3.3 A.35.8: X-Ray Radiation Dose SR, Modality SR",
    "ge-hispeed": "neurolabusc/dcm_qa_ct d03e30e In/GE: HiSpeed Dual 3.40, a head",
    "ge-lightspeed": (
        "MehmetOKUYAR/convert_dcim2png README.md: printed header of a LightSpeed Pro 32 07MW18.4, "
        "a head"
    ),
    "ge-retrospective": (
        "icometrix/dicom2nifti d68253e tests/data/failing/sliceincrement/001: LightSpeed16"
    ),
    "ge-archived": (
        "cornerstonejs codecs' CTImage.dcm: HiSpeed CT/i 05, Derivation Description "
        "'lossy conversion'"
    ),
    "ge-pydicom": "pydicom 3.0.2 test file CT_small.dcm: HiSpeed CT/i 05",
    "ge-statement": (
        "GE Healthcare DOC0500644 rev 4, Discovery, LightSpeed and BrightSpeed DICOM Conformance "
        "Statement, A.1.1.1 (no contrast: element not sent) and A.5 (secondary capture)"
    ),
    "ge-dose": (
        "PixelMed com.pixelmed.doseocr.OCR, isGEDoseScreenInstance: DERIVED\\SECONDARY\\SCREEN "
        "SAVE, series 999"
    ),
    "ge-reformatted": (
        "printed list of the Image Type values of the OSIC CT data (REFORMATTED, AVERAGE), in the "
        "order of nimsdata's constant GEMS_TYPE_DERIVED_RFMT"
    ),
    "ge-spectral": (
        "a public body composition pipeline, function use_series: leaves ORIGINAL, PRIMARY, AXIAL "
        "images out that also hold 'GSI MD', because they are not HU"
    ),
    "siemens-sensation": (
        "'DICOM images in Python: An overview' (2022-09-29): printed header of a Sensation 64 "
        "syngo CT 2014A, a head"
    ),
    "siemens-dicomdir": (
        "the same author's printed DICOMDIR: topogram and slices of that study share one frame of "
        "reference"
    ),
    "siemens-go": "pydicom issue 1330: printed header of a SOMATOM go, UID root .5.1.7.111752",
    "siemens-drive": "printed table of the four series of a SOMATOM Drive study of 2026",
    "siemens-rsna": (
        "printed Image Types of the RSNA intracranial hemorrhage data (stage_1_train), heads"
    ),
    "siemens-osic": (
        "printed list of the Image Type values of the OSIC data: CT_SOM7 SPI DUAL, STD, SNRG, "
        "DET_AB, of dual-source scans at one energy"
    ),
    "siemens-dose": (
        "PixelMed com.pixelmed.doseocr.OCR, isSiemensDoseScreenInstance: "
        "DERIVED\\SECONDARY\\OTHER\\CT_SOM5 PROT, series 501"
    ),
    "siemens-dose-class": (
        "NrgXnat DICOM data generator, Siemens Biograph64_TruePoint: 'Patient Protocol' is a "
        "Secondary Capture"
    ),
    "siemens-perfusion": (
        "printed Image Types of Siemens perfusion studies: CT_SOM7 VPCT with AVG, MIP and BF, "
        "CT_SOM8 PERF with AVG and MIP"
    ),
    "siemens-resampled": (
        "FHIR ImagingStudy of a Siemens study: "
        "DERIVED\\SECONDARY\\LOCALIZER\\CT_SOM5 TOP\\CSA RESAMPLED"
    ),
    "stanford-filter": (
        "susom/mirc-ctp 33b761f scripts/stanford-filter.script: models, Image Types and matrices "
        "of series that are let pass"
    ),
    "philips-ingenuity": (
        "neurolabusc/dcm_qa_ct d03e30e In/Philips: Ingenuity CT 4.1, head phantom, two studies"
    ),
    "philips-brilliance": (
        "DilvanLab/dicom-roi-editor demo .tag files: printed header, value 4 of Image Type is HELIX"
    ),
    "philips-ict": (
        "Carpentries lesson on safe metadata of medical images: printed header of an iCT 256 4.1"
    ),
    "philips-2025": (
        "zfifteen/wave-crispr-signal: printed headers of an Ingenuity head study of 2025"
    ),
    "toshiba-aquilion": "a public head study of an Aquilion V4.77ER007, 188 files in 5 series",
    "toshiba-one": (
        "LiangHe266/Biotornadohl app/scripts/pacs/src20160227/dump.txt: dcmdump of an Aquilion ONE "
        "V4.74ER004"
    ),
    "toshiba-dose": (
        "PixelMed com.pixelmed.doseocr.OCR, isToshibaDoseScreenInstance, and RSNA CTP "
        "DicomPixelAnonymizer.script: DERIVED\\SECONDARY, series 1000 or 9000, Window Width 1"
    ),
    "toshiba-statement": (
        "Toshiba MIICT0057EA, DICOM Conformance Statement Aquilion V5.00, Table 1-3: CT Image and "
        "grayscale Secondary Capture are the image classes that are written"
    ),
    "hitachi-supria": "pydicom 3.0.2 test file J2K_pixelrep_mismatch.dcm: Supria 0005, a head",
    "hitachi-name": (
        "OrtogOnBlender, branch on Manufacturer 'Hitachi Medical Corporation', model SCENARIA"
    ),
    "uih-name": "rordenlab/dcm2niix issue 225 and nii_dicom.cpp dcmStrManufacturer: UIH",
}


@dataclass(frozen=True, kw_only=True)
class PrivateElement:
    """A harmless element of a private block."""

    group: int
    creator: str
    element: int  #: within the block
    vr: str
    value: object
    source: str


@dataclass(frozen=True, kw_only=True)
class ScannerSeries:
    """One series of the study: in which shape it is scanned, and what its headers say."""

    shape: Shape = "axial"
    attributes: Attributes
    lean_deg: float = 0.0  #: of the phantom's planes; positive: the chin side lies higher
    matrix: tuple[int, int] = (128, 128)
    thickness_mm: float = 5.0
    step_mm: float = 6.0


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """What one vendor writes."""

    vendor: str
    common: Attributes  #: of every CT object of the study
    series: Mapping[str, ScannerSeries]
    #: stored value outside the circle of reconstruction, where one was seen
    outside: Sourced | None = None
    private: tuple[PrivateElement, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)  #: what no source settles, and why


def _type(image_type: str, source: str) -> dict[str, Sourced]:
    return {"ImageType": (image_type.split("\\"), source)}


#: what an object without the CT Image and Image Plane modules does not hold
_PAGE: Final[Attributes] = {
    "SOPClassUID": (SecondaryCaptureImageStorage, "ps3.3-capture"),
    **dict.fromkeys(
        (
            "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
            "FrameOfReferenceUID", "ConvolutionKernel", "GantryDetectorTilt", "KVP",
        ),
        (None, "ps3.3-capture"),
    ),
}  # fmt: skip

GE: Final = Scanner(
    vendor="GE",
    common={
        "Manufacturer": ("GE MEDICAL SYSTEMS", "ge-lightspeed"),
        "ManufacturerModelName": ("LightSpeed Pro 32", "ge-lightspeed"),
        "SoftwareVersions": ("07MW18.4", "ge-lightspeed"),
        "PixelRepresentation": (1, "ge-lightspeed"),
        "BitsStored": (16, "ge-lightspeed"),
        "RescaleIntercept": (-1024, "ge-lightspeed"),
        "RescaleType": ("HU", "ge-lightspeed"),
        "PixelPaddingValue": (-2000, "ge-lightspeed"),
        "ScanOptions": ("HELICAL MODE", "ge-lightspeed"),
        "PositionReferenceIndicator": ("OM", "ge-lightspeed"),
        "BodyPartExamined": (None, "ge-lightspeed"),
        "ContrastBolusAgent": (None, "ge-statement"),
    },
    outside=(-2000, "ge-lightspeed"),
    series={
        "thick": ScannerSeries(
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL", "ge-lightspeed"),
                "ConvolutionKernel": ("SOFT", "ge-lightspeed"),
                "SeriesNumber": (2, "ge-lightspeed"),
            }
        ),
        "tilted-two-row": ScannerSeries(
            lean_deg=-18.5,
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL\\ADD", "ge-hispeed"),
                "ManufacturerModelName": ("HiSpeed Dual", "ge-hispeed"),
                "ConvolutionKernel": ("STD+", "ge-hispeed"),
                "GantryDetectorTilt": ("+18.5", "ge-hispeed"),
                "RescaleIntercept": (0, "ge-hispeed"),
                "RescaleType": (None, "ge-hispeed"),
                "PixelPaddingValue": (-1500, "ge-hispeed"),
                "ScanOptions": (None, "ge-hispeed"),
                "BodyPartExamined": ("HEAD", "ge-hispeed"),
                "SeriesNumber": (2, "ge-hispeed"),
            },
        ),
        "retrospective": ScannerSeries(
            attributes={
                **_type("ORIGINAL\\SECONDARY\\AXIAL", "ge-retrospective"),
                "ManufacturerModelName": ("LightSpeed16", "ge-retrospective"),
                "ConvolutionKernel": ("STANDARD", "ge-pydicom"),
                "SpacingBetweenSlices": (STEP, "ge-pydicom"),
            }
        ),
        "lossy-archive": ScannerSeries(
            attributes={
                **_type("DERIVED \\PRIMARY\\AXIAL", "ge-archived"),
                "ManufacturerModelName": ("HiSpeed CT/i", "ge-archived"),
                "ConvolutionKernel": ("STANDARD", "ge-archived"),
                "DerivationDescription": ("lossy conversion", "ge-archived"),
                "SpacingBetweenSlices": (STEP, "ge-archived"),
            }
        ),
        "reformatted-axial": ScannerSeries(
            attributes={
                **_type("DERIVED\\SECONDARY\\REFORMATTED\\AVERAGE", "ge-reformatted"),
                "ConvolutionKernel": ("STANDARD", "ge-pydicom"),
            }
        ),
        "material": ScannerSeries(
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL\\GSI MD", "ge-spectral"),
                "ConvolutionKernel": ("STANDARD", "ge-pydicom"),
                "RescaleType": (None, "ge-spectral"),
            }
        ),
        "localizer": ScannerSeries(
            shape="lateral",
            attributes={
                **_type("ORIGINAL\\PRIMARY\\LOCALIZER", "ps3.3-localizer"),
                "SeriesNumber": (1, "ge-lightspeed"),
            },
        ),
        "dose-page": ScannerSeries(
            shape="lateral",
            attributes={
                **_PAGE,
                **_type("DERIVED\\SECONDARY\\SCREEN SAVE", "ge-dose"),
                "SeriesNumber": (999, "ge-dose"),
                "SeriesDescription": ("Dose Report", "stanford-filter"),
                "ConversionType": ("WSD", "ge-statement"),
            },
        ),
    },
    private=(
        PrivateElement(
            group=0x0019, creator="GEMS_ACQU_01", element=0x02, vr="SL", value=912,
            source="ge-lightspeed",
        ),
        PrivateElement(
            group=0x0043, creator="GEMS_PARM_01", element=0x10, vr="US", value=100,
            source="ge-lightspeed",
        ),
    ),
    left_out={
        "Image Type of monoenergetic series": "no header of one was found",
        "sharp kernel": "names are known (BONE, EDGE), no head header with one was found",
        "scout's rescale and kernel": "no header of a scout was found",
    },
)  # fmt: skip

SIEMENS: Final = Scanner(
    vendor="Siemens",
    common={
        "Manufacturer": ("SIEMENS", "siemens-sensation"),
        "ManufacturerModelName": ("Sensation 64", "siemens-sensation"),
        "SoftwareVersions": ("syngo CT 2014A", "siemens-sensation"),
        "PixelRepresentation": (0, "siemens-sensation"),
        "BitsStored": (12, "siemens-sensation"),
        "RescaleIntercept": (-1024, "siemens-sensation"),
        "RescaleType": (None, "siemens-sensation"),
        "ProtocolName": ("CBM_encefalo_SEQ", "siemens-sensation"),
        "StudyDescription": ("TC CRANIO (CAPO)", "siemens-sensation"),
        "BodyPartExamined": ("HEAD", "siemens-sensation"),
    },
    series={
        "thick": ScannerSeries(
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SEQ", "siemens-sensation"),
                "ConvolutionKernel": ("H23s", "siemens-sensation"),
                "SeriesDescription": ("HeadSeq  2.4  H23s", "siemens-sensation"),
                "SeriesNumber": (2, "siemens-sensation"),
                "AcquisitionNumber": (3, "siemens-sensation"),
            }
        ),
        "dual-source": ScannerSeries(
            attributes={
                **_type(
                    "ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM7 SPI DUAL\\STD\\SNRG\\DET_AB", "siemens-osic"
                ),
                "ConvolutionKernel": ("H23s", "siemens-sensation"),
            }
        ),
        "sharp": ScannerSeries(
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SPI", "siemens-go"),
                "ConvolutionKernel": ("Br57", "siemens-drive"),
            }
        ),
        "reformatted-axial": ScannerSeries(
            attributes={
                **_type("DERIVED\\PRIMARY\\AXIAL\\CT_SOM5 MPR", "siemens-rsna"),
                "ConvolutionKernel": ("H23s", "siemens-sensation"),
            }
        ),
        "coronal-named-localizer": ScannerSeries(
            shape="coronal",
            attributes={
                **_type("DERIVED\\PRIMARY\\LOCALIZER\\CT_SOM5 MPR", "siemens-drive"),
                "ConvolutionKernel": (None, "siemens-drive"),
            },
        ),
        "mip": ScannerSeries(
            attributes={
                **_type("DERIVED\\PRIMARY\\AXIAL\\CT_SOM5 MIP", "siemens-rsna"),
                "ConvolutionKernel": ("H23s", "siemens-sensation"),
            }
        ),
        "perfusion-average": ScannerSeries(
            attributes={
                **_type("DERIVED\\SECONDARY\\AXIAL\\CT_SOM7 VPCT\\AVG", "siemens-perfusion"),
                "ConvolutionKernel": ("H23s", "siemens-sensation"),
            }
        ),
        "perfusion-flow": ScannerSeries(
            attributes={
                **_type("DERIVED\\SECONDARY\\AXIAL\\CT_SOM7 VPCT\\BF", "siemens-perfusion"),
                "ConvolutionKernel": ("H23s", "siemens-sensation"),
            }
        ),
        "localizer": ScannerSeries(
            shape="lateral",
            attributes={
                **_type("ORIGINAL\\PRIMARY\\LOCALIZER\\CT_SOM5 TOP", "siemens-dicomdir"),
                "ConvolutionKernel": (None, "siemens-drive"),
                "SeriesNumber": (1, "siemens-dicomdir"),
            },
        ),
        "localizer-resampled": ScannerSeries(
            shape="lateral",
            attributes=_type(
                "DERIVED\\SECONDARY\\LOCALIZER\\CT_SOM5 TOP\\CSA RESAMPLED", "siemens-resampled"
            ),
        ),
        "dose-page": ScannerSeries(
            shape="lateral",
            attributes={
                **_PAGE,
                **_type("DERIVED\\SECONDARY\\OTHER\\CT_SOM5 PROT", "siemens-dose"),
                "SeriesNumber": (501, "siemens-dose"),
                "SeriesDescription": ("Patient Protocol", "siemens-dose-class"),
            },
        ),
        "dose-report": ScannerSeries(
            shape="report",
            attributes={
                **_PAGE,
                "SOPClassUID": (XRayRadiationDoseSRStorage, "ps3.3-dose"),
                "Modality": ("SR", "ps3.3-dose"),
                "ImageType": (None, "ps3.3-dose"),
            },
        ),
    },
    private=(
        PrivateElement(
            group=0x0019, creator="SIEMENS CT EXAM APP SHARED", element=0x02, vr="UL", value=174,
            source="siemens-go",
        ),
    ),
    left_out={
        "sign of the tilt": "the tilted files that were found hold no (0018,1120)",
        "Pixel Padding Value": "none in the headers that were found",
        "Image Type of monoenergetic series": "no header of one was found",
        "dual-energy blends (DEOC)": "CT_SOM8 DEOC was seen as a value, the whole Image Type not",
    },
)  # fmt: skip

PHILIPS: Final = Scanner(
    vendor="Philips",
    common={
        "Manufacturer": ("Philips", "philips-ingenuity"),
        "ManufacturerModelName": ("Ingenuity CT", "philips-ingenuity"),
        "SoftwareVersions": ("4.1", "philips-ingenuity"),
        "PixelRepresentation": (0, "philips-ingenuity"),
        "BitsStored": (12, "philips-ingenuity"),
        "RescaleIntercept": (-1024, "philips-ingenuity"),
        "RescaleType": (None, "philips-ingenuity"),
        "ProtocolName": ("1A TRAUMA/PLAIN HEAD DM /Head", "philips-ingenuity"),
        "StudyDescription": ("1A TRAUMA/PLAIN HEAD DM", "philips-ingenuity"),
        "BodyPartExamined": ("BRAIN", "philips-ingenuity"),
        "ScanOptions": ("HELIX", "philips-ingenuity"),
        "SpacingBetweenSlices": (STEP, "philips-ingenuity"),
    },
    series={
        "thick": ScannerSeries(
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL", "philips-ingenuity"),
                "ConvolutionKernel": ("UB", "philips-ingenuity"),
                "SeriesDescription": ("STD BRAIN 5MM", "philips-ingenuity"),
                "SeriesNumber": (201, "philips-ingenuity"),
            }
        ),
        "helix": ScannerSeries(
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL\\HELIX", "philips-brilliance"),
                "ConvolutionKernel": ("UB", "philips-ingenuity"),
            }
        ),
        "iterative": ScannerSeries(
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL\\HELIX", "philips-brilliance"),
                "ConvolutionKernel": ("IMR1,Soft Tissue", "philips-ict"),
            }
        ),
        "tilted": ScannerSeries(
            lean_deg=16.5,
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL", "philips-ingenuity"),
                "ConvolutionKernel": ("UB", "philips-ingenuity"),
                "GantryDetectorTilt": ("16.5", "philips-ingenuity"),
                "SeriesDescription": ("STEREOTAXIS", "philips-ingenuity"),
                "ProtocolName": ("1F STEREOTAXIS /Head", "philips-ingenuity"),
                "ScanOptions": ("AXIAL", "philips-ingenuity"),
                "SeriesNumber": (301, "philips-ingenuity"),
            },
        ),
        "sharp": ScannerSeries(
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL", "philips-ingenuity"),
                "ConvolutionKernel": ("YA", "philips-ingenuity"),
                "SeriesDescription": ("BONE BRAIN 1MM", "philips-ingenuity"),
                "SeriesNumber": (203, "philips-ingenuity"),
            }
        ),
        "reformatted-axial": ScannerSeries(
            matrix=(172, 138),
            thickness_mm=4.0,
            step_mm=3.0,
            attributes={
                **_type("DERIVED\\SECONDARY\\MPR", "philips-2025"),
                "ConvolutionKernel": ("UC", "philips-2025"),
            },
        ),
        "reformatted-coronal": ScannerSeries(
            shape="coronal",
            attributes={
                **_type("DERIVED\\SECONDARY\\MPR", "philips-ict"),
                "ConvolutionKernel": ("IMR1,Soft Tissue", "philips-ict"),
                "SeriesNumber": (203, "philips-ict"),
            },
        ),
        "localizer": ScannerSeries(
            shape="lateral",
            attributes={
                **_type("ORIGINAL\\PRIMARY\\LOCALIZER", "philips-ingenuity"),
                "SeriesDescription": ("", "philips-ingenuity"),
                "SeriesNumber": (100, "philips-ingenuity"),
                "AcquisitionNumber": (0, "philips-ingenuity"),
                "BodyPartExamined": ("", "philips-ingenuity"),
                "ConvolutionKernel": (None, "philips-ingenuity"),
                "ScanOptions": ("SURVIEW", "philips-ingenuity"),
                "SliceThickness": ("0.625", "philips-ingenuity"),
                "SpacingBetweenSlices": (None, "philips-ingenuity"),
            },
        ),
        "exam-summary": ScannerSeries(
            shape="lateral",
            attributes={
                "SOPClassUID": (SecondaryCaptureImageStorage, "philips-ingenuity"),
                **_type("DERIVED\\SECONDARY\\REF_SURVIEW", "philips-ingenuity"),
                "SeriesDescription": ("Exam Summary", "philips-ingenuity"),
                "SeriesNumber": (401, "philips-ingenuity"),
                "AcquisitionNumber": (0, "philips-ingenuity"),
                "BodyPartExamined": ("", "philips-ingenuity"),
                "ConversionType": ("WSD", "philips-ingenuity"),
                "ConvolutionKernel": (None, "philips-ingenuity"),
                "ScanOptions": ("SURVIEW", "philips-ingenuity"),
                "SpacingBetweenSlices": (None, "philips-ingenuity"),
            },
        ),
    },
    private=(
        PrivateElement(
            group=0x01F1, creator="ELSCINT1", element=0x01, vr="CS", value="SPIRAL",
            source="philips-ingenuity",
        ),
    ),
    left_out={
        "Pixel Padding Value": "none in the headers that were found",
        "spectral series": "no header of one was found",
    },
)  # fmt: skip

CANON: Final = Scanner(
    vendor="Canon",
    common={
        "Manufacturer": ("TOSHIBA", "toshiba-aquilion"),
        "ManufacturerModelName": ("Aquilion", "toshiba-aquilion"),
        "SoftwareVersions": ("V4.77ER007", "toshiba-aquilion"),
        "PixelRepresentation": (1, "toshiba-one"),
        "BitsStored": (16, "toshiba-one"),
        "RescaleIntercept": (0, "toshiba-one"),
        "RescaleType": (None, "toshiba-one"),
        "PixelPaddingValue": (None, "toshiba-one"),
        "ProtocolName": ("BRAIN", "toshiba-aquilion"),
        "BodyPartExamined": ("HEAD", "toshiba-aquilion"),
        "ScanOptions": ("HELICAL_CT", "toshiba-one"),
        "FilterType": ("SMALL", "toshiba-aquilion"),
        "GantryDetectorTilt": ("+0.0", "toshiba-one"),
    },
    outside=(-2048, "toshiba-one"),
    series={
        "thick": ScannerSeries(
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL", "toshiba-one"),
                "ConvolutionKernel": ("FC63", "toshiba-aquilion"),
                "SeriesDescription": ("Brain Head 5.0", "toshiba-aquilion"),
                "SeriesNumber": (2, "toshiba-aquilion"),
                "AcquisitionNumber": (3, "toshiba-aquilion"),
            }
        ),
        "tilted": ScannerSeries(
            lean_deg=-10.5,
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL", "toshiba-aquilion"),
                "ConvolutionKernel": ("FC63", "toshiba-aquilion"),
                "GantryDetectorTilt": ("+10.5", "toshiba-aquilion"),
            },
        ),
        "sharp": ScannerSeries(
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL", "toshiba-aquilion"),
                "ConvolutionKernel": ("FC30", "toshiba-aquilion"),
                "SeriesDescription": ("Brain Bone 5.0", "toshiba-aquilion"),
                "SeriesNumber": (3, "toshiba-aquilion"),
            }
        ),
        "reformatted-axial": ScannerSeries(
            attributes={
                **_type("DERIVED\\PRIMARY\\MPR", "stanford-filter"),
                "Manufacturer": ("CANON MEDICAL SYSTEMS", "stanford-filter"),
                "ManufacturerModelName": ("Aquilion ONE", "stanford-filter"),
                "ConvolutionKernel": ("FC63", "toshiba-aquilion"),
            }
        ),
        "reformatted-coronal": ScannerSeries(
            shape="coronal",
            attributes={
                **_type("DERIVED\\PRIMARY\\MPR", "toshiba-aquilion"),
                "ConvolutionKernel": ("FC63", "toshiba-aquilion"),
                "GantryDetectorTilt": ("+10.5", "toshiba-aquilion"),
                "SeriesDescription": ("Coronal Brain/Coronal Head 3.0", "toshiba-aquilion"),
                "SeriesNumber": (5, "toshiba-aquilion"),
            },
        ),
        "localizer": ScannerSeries(
            shape="frontal",
            attributes={
                **_type("ORIGINAL\\PRIMARY\\LOCALIZER", "toshiba-aquilion"),
                "ConvolutionKernel": ("FL03", "toshiba-aquilion"),
                "ScanOptions": ("SCANOSCOPE", "toshiba-aquilion"),
                "SeriesDescription": ("2.0", "toshiba-aquilion"),
                "SliceThickness": ("2.0", "toshiba-aquilion"),
                "SeriesNumber": (1, "toshiba-aquilion"),
                "AcquisitionNumber": (2, "toshiba-aquilion"),
            },
        ),
        "dose-page": ScannerSeries(
            shape="lateral",
            attributes={
                **_PAGE,
                "SOPClassUID": (SecondaryCaptureImageStorage, "toshiba-statement"),
                **_type("DERIVED\\SECONDARY", "toshiba-dose"),
                "SeriesNumber": (9000, "toshiba-dose"),
                "WindowCenter": (0, "toshiba-dose"),
                "WindowWidth": (1, "toshiba-dose"),
                "ConversionType": ("WSD", "toshiba-statement"),
            },
        ),
    },
    private=(
        PrivateElement(
            group=0x7005, creator="TOSHIBA_MEC_CT3", element=0x0D, vr="CS", value="HEAD",
            source="toshiba-aquilion",
        ),
    ),
    left_out={
        "perfusion and subtraction series": "no header of one was found",
        "Canon's own axial series": "only Toshiba's headers were found; Canon's name and MPR",
    },
)  # fmt: skip

HITACHI: Final = Scanner(
    vendor="Hitachi",
    common={
        "Manufacturer": ("Hitachi Medical Corporation", "hitachi-name"),
        "ManufacturerModelName": ("Supria", "hitachi-supria"),
        "SoftwareVersions": ("0005", "hitachi-supria"),
        "PixelRepresentation": (1, "hitachi-supria"),
        "BitsStored": (13, "hitachi-supria"),
        "RescaleIntercept": (0, "hitachi-supria"),
        "RescaleType": (None, "hitachi-supria"),
        "ProtocolName": ("194", "hitachi-supria"),
        "BodyPartExamined": ("HEAD", "hitachi-supria"),
        "ContrastBolusAgent": ("", "hitachi-supria"),
        "ContrastBolusVolume": ("", "hitachi-supria"),
        "ContrastBolusStartTime": ("", "hitachi-supria"),
        "WindowCenter": ([40, 40, 40], "hitachi-supria"),
        "WindowWidth": ([100, 100, 200], "hitachi-supria"),
    },
    series={
        "thick": ScannerSeries(
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL\\NORMAL", "hitachi-supria"),
                "ConvolutionKernel": ("11", "hitachi-supria"),
                "SeriesDescription": ("Lv2", "hitachi-supria"),
                "SeriesNumber": (4, "hitachi-supria"),
                "AcquisitionNumber": (2, "hitachi-supria"),
            }
        ),
        "tilted": ScannerSeries(
            lean_deg=-22.0,
            attributes={
                **_type("ORIGINAL\\PRIMARY\\AXIAL\\NORMAL", "hitachi-supria"),
                "ConvolutionKernel": ("11", "hitachi-supria"),
                "GantryDetectorTilt": ("-22.0", "hitachi-supria"),
            },
        ),
        "localizer": ScannerSeries(
            shape="lateral",
            attributes=_type("ORIGINAL\\PRIMARY\\LOCALIZER", "ps3.3-localizer"),
        ),
    },
    private=(
        PrivateElement(
            group=0x0019, creator="SET WINDOW", element=0x01, vr="UN", value=b"\xe8\x03",
            source="hitachi-supria",
        ),
    ),
    left_out={
        "what the numbers of kernels mean": "no public list was found: they stay unknown",
        "Fujifilm's name in Manufacturer": "no header of a Fujifilm CT was found",
        "dose page, reformats": "no header of one was found",
    },
)  # fmt: skip

UNITED_IMAGING: Final = Scanner(
    vendor="United Imaging",
    common={
        "Manufacturer": ("UIH", "uih-name"),
        "ConvolutionKernel": (None, "uih-name"),
    },
    series={
        "thick": ScannerSeries(attributes=_type("ORIGINAL\\PRIMARY\\AXIAL", "ps3.3-axial")),
        "localizer": ScannerSeries(
            shape="lateral",
            attributes=_type("ORIGINAL\\PRIMARY\\LOCALIZER", "ps3.3-localizer"),
        ),
    },
    left_out={
        "everything else": "no header of a CT was found, only of MR; kernel names have no source",
    },
)

NEUSOFT: Final = Scanner(
    vendor="Neusoft",
    common={
        "Manufacturer": ("Neusoft", "stanford-filter"),
        "ConvolutionKernel": (None, "stanford-filter"),
    },
    series={
        "thick": ScannerSeries(attributes=_type("ORIGINAL\\PRIMARY\\AXIAL", "ps3.3-axial")),
        "reformatted-axial": ScannerSeries(
            matrix=(128, 153),
            attributes={
                **_type("DERIVED\\SECONDARY\\MPR", "stanford-filter"),
                "SecondaryCaptureDeviceManufacturerModelName": ("NeuViz 16", "stanford-filter"),
            },
        ),
    },
    left_out={
        "dose page": "a value DOSE_INFO of Image Type was seen, not which",
        "kernels, pixel format, private groups": "no header was found",
    },
)

SCANNERS: Final = (GE, SIEMENS, PHILIPS, CANON, HITACHI, UNITED_IMAGING, NEUSOFT)

_ORIENTATIONS: Final[Mapping[Shape, tuple[float, ...] | None]] = {
    "axial": None,
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "frontal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "lateral": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "report": None,
}
#: attributes that the phantom must store its pixels by
_STORED: Final = frozenset(
    {"PixelRepresentation", "BitsStored", "RescaleIntercept", "PixelPaddingValue"}
)


def scan(scanner: Scanner, name: str, *, blank: bool = False) -> list[Dataset]:
    """Make one series of a vendor's study.

    Parameters
    ----------
    scanner : Scanner
        The vendor.
    name : str
        A key of ``scanner.series``.
    blank : bool
        Air instead of a head, for what reads headers only.
    """
    series = scanner.series[name]
    attributes = {**scanner.common, **series.attributes}
    instances = head_ct(_spec(scanner, name, attributes), blank=blank)
    for instance in instances:
        for keyword, (value, _) in attributes.items():
            _set(instance, keyword, series.step_mm if value is STEP else value)
        for element in scanner.private:
            block = instance.private_block(element.group, element.creator, create=True)
            block.add_new(element.element, element.vr, element.value)
        if series.shape == "report":
            _without_pixels(instance)
    return instances


def study(scanner: Scanner, *, blank: bool = False) -> list[Dataset]:
    """Make all series of a vendor as one study."""
    return [i for name in scanner.series for i in scan(scanner, name, blank=blank)]


def _spec(scanner: Scanner, name: str, attributes: Attributes) -> PhantomSpec:
    """Choose geometry and storage of one series."""

    def value(keyword: str, default: object = None) -> object:
        return attributes.get(keyword, (default, ""))[0]

    series = scanner.series[name]
    one = series.shape in {"lateral", "frontal", "report"}
    padding = value("PixelPaddingValue")
    outside = padding if padding is not None else (scanner.outside or (None, ""))[0]
    count = 1 + round(138.0 / series.step_mm)
    return PhantomSpec(
        seed=sum(map(ord, scanner.vendor)),
        patient_id=f"PHANTOM-{scanner.vendor.upper()}",
        rows=series.matrix[0],
        columns=series.matrix[1],
        orientation=_ORIENTATIONS[series.shape],
        gantry_tilt_deg=series.lean_deg,
        slice_distances_mm=(0.0,) if one else tuple(-60.0 + series.step_mm * np.arange(count)),
        slice_thickness_mm=100.0 if one else series.thickness_mm,
        series_description=name,
        series_number=1000 + list(scanner.series).index(name),
        signed=bool(value("PixelRepresentation", 1)),
        bits_stored=int(str(value("BitsStored", 16))),
        intercept=float(str(value("RescaleIntercept", -1024))),
        padding=None if outside is None else int(str(outside)),
        declare_padding=padding is not None,
    )


def _set(instance: Dataset, keyword: str, value: object) -> None:
    if keyword in _STORED:
        return
    if value is None:
        if keyword in instance:
            delattr(instance, keyword)
    else:
        setattr(instance, keyword, value)
    if keyword == "SOPClassUID":
        instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID


def _without_pixels(instance: Dataset) -> None:
    for element in list(instance):
        if element.tag.group in {0x0028, 0x7FE0}:
            del instance[element.tag]
