"""The words by which an object of this node is known as synthetic.

One list for three readers: ``write`` puts them in, ``gate`` refuses an object without them,
``select`` recognises them on what comes back (the loop guard). docs/objects.md gives the reason
of each. Tags are written as (group << 16) + element, because the domain speaks no DICOM library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MANUFACTURER: Final = "rebrain-node"
MODEL_NAME: Final = "REBRAIN synthetic MR"  #: (0008,1090) of every written object
SYNTHETIC_DATA: Final = "YES"  #: (0008,001C), PS3.3 C.12.1; on every object
CONTENT_QUALIFICATION: Final = "RESEARCH"  #: (0018,9004), on every image
#: (0008,0008) of the MR series; the fourth value is ours, no defined term says synthetic
IMAGE_TYPE: Final = ("DERIVED", "SECONDARY", "OTHER", "SYNTHETIC")
#: the same of an Enhanced MR, whose second value must be PRIMARY (PS3.3 C.8.16.1.2)
ENHANCED_IMAGE_TYPE: Final = ("DERIVED", "PRIMARY", "OTHER", "SYNTHETIC")
SERIES_NUMBER_OFFSET: Final = 9000  #: MR SeriesNumber = this + the source's
#: (0020,0011) of each companion = SERIES_NUMBER_OFFSET + source + 100 * place in this tuple
SERIES_ORDER: Final = ("MR", "PM", "SEG", "SC", "PR", "SR", "KOS")
#: every SeriesDescription begins with this word; lists in viewers cut the rest
SERIES_DESCRIPTION_WORD: Final = "SYNTH"
SERIES_DESCRIPTION_PREFIX: Final = "SYNTH MR T1"  #: of the MR series
COMMENT_PREFIX: Final = "SYNTHETIC"  #: ImageComments (0020,4000) begins with it
VISIBLE_WORDS: Final = "SYNTHETIC - NOT FOR DIAGNOSIS"  #: what a viewer shows on the MR
NOT_FOR_DIAGNOSIS: Final = "not for diagnosis"  #: and contains this
#: Image Comments of a slice whose uncertainty is above the recipe's limit contain this
NOT_TRUSTED: Final = "not to be trusted"
DERIVATION_PREFIX: Final = "SYNTHETIC"  #: DerivationDescription (0008,2111) begins with it
UID_ROOT: Final = "2.25."  #: PS3.5 B.2: the decimal form of a UUID
#: (0002,0012) of every file and A-ASSOCIATE of this node; 2.25 form of uuid5(DNS, "rebrain-node")
IMPLEMENTATION_CLASS_UID: Final = "2.25.29700054525659482215998749719895078887"
IMPLEMENTATION_VERSION_NAME: Final = "REBRAIN_NODE_1"  #: (0002,0013), at most 16 characters

#: key, tile and band of the mark in the pixels (`rebrain_node.watermark`)
WATERMARK_SCHEME: Final = "REBRAIN_1"

CODING_SCHEME: Final = "99REBRAIN"
CODING_SCHEME_NAME: Final = "rebrain-node private codes"
DERIVATION_CODE: Final = ("SYNTH-MR-FROM-CT", CODING_SCHEME, "Synthetic MR image from CT")

#: ContributingEquipmentSequence purposes, PS3.16 CID 7005: (value, scheme, meaning)
ACQUISITION_EQUIPMENT: Final = ("109101", "DCM", "Acquisition Equipment")
SYNTHESIZING_EQUIPMENT: Final = ("109100", "DCM", "Synthesizing Equipment")
PROCESSING_EQUIPMENT: Final = ("109102", "DCM", "Processing Equipment")

PRIVATE_GROUP: Final = 0x0071
PRIVATE_CREATOR: Final = "REBRAIN NODE 1"


@dataclass(frozen=True)
class PrivateElement:
    """One element of the private block: (0071,xxNN) with NN = ``offset`` (PS3.5 7.8)."""

    offset: int
    name: str
    vr: str
    condition: str = ""  #: where it is present; empty: always


# Of the whole result, on every object.
JOB: Final = PrivateElement(0x01, "Job digest", "LO")  #: Provenance.digest
REVISION: Final = PrivateElement(0x02, "Revision", "US")
INPUT_DIGEST: Final = PrivateElement(0x03, "Input digest", "LO")
BUNDLE: Final = PrivateElement(0x04, "Bundle name and version", "LO")
BUNDLE_DIGEST: Final = PrivateElement(0x05, "Bundle digest", "LO")
ENGINE: Final = PrivateElement(0x06, "Engine identity", "LO")
CONFIGURATION_DIGEST: Final = PrivateElement(0x07, "Configuration digest", "LO")
SOFTWARE: Final = PrivateElement(0x08, "Software version", "LO")
COMPLETENESS: Final = PrivateElement(0x09, "Completeness verdict", "LO")
FINDINGS: Final = PrivateElement(0x0A, "Codes of findings", "LO", "where there are any")
UNCERTAIN_ABOVE: Final = PrivateElement(0x0B, "Limit on the uncertainty of a voxel", "FD")
PREDECESSOR: Final = PrivateElement(
    0x0C, "MR series of the revision before", "UI", "where an earlier revision gave a set"
)
#: the label of `UncertaintyInterpretation`
CALIBRATION: Final = PrivateElement(0x0D, "Calibration of the uncertainty", "LO")
UNTRUSTED_ABOVE: Final = PrivateElement(
    0x0E, "Limit on the mean uncertainty of a slice", "FD", "where the recipe sets one"
)
TISSUE_SHIFT: Final = PrivateElement(
    0x0F, "Shift of soft tissue of the CT in HU", "FD", "where the recipe sets a level"
)
# Of one slice, on the MR series; of an Enhanced MR, in an item of SLICE_PROVENANCE a frame.
POSITION_KIND: Final = PrivateElement(0x10, "Position kind", "CS")  #: POSITION_KINDS
ALPHA: Final = PrivateElement(0x11, "Place between the neighbours", "FD")
NEIGHBOURS: Final = PrivateElement(0x12, "Source instances below and above", "UI")
EXEMPLAR: Final = PrivateElement(0x13, "Keyed hash of the exemplar", "LO", "where retrieved")
SIMILARITY: Final = PrivateElement(0x14, "Similarity of the exemplar", "FD", "where retrieved")
POSITION_DIFFERENCE: Final = PrivateElement(
    0x15, "Exemplar minus target position in mm", "FD", "where retrieved"
)
TAU: Final = PrivateElement(0x16, "Threshold on the similarity", "FD", "where retrieved")
UNCERTAINTY: Final = PrivateElement(0x17, "Mean uncertainty inside the head", "FD")
CALIBRATED: Final = PrivateElement(0x18, "Whether the uncertainty is calibrated", "CS")  #: YES, NO
NEIGHBOUR_FRAMES: Final = PrivateElement(
    0x19, "Frames of the neighbours", "US", "where the CT is an Enhanced CT"
)
#: YES, NO
TRUSTED: Final = PrivateElement(
    0x1A, "Whether the slice is to be trusted", "CS", "where the recipe sets a limit"
)

#: WATERMARK_SCHEME
WATERMARK: Final = PrivateElement(
    0x1B, "Watermark in the pixels", "CS", "where `marks.watermark` is on"
)

#: functional group of each frame of an Enhanced MR (PS3.3 C.7.6.16)
SLICE_PROVENANCE: Final = PrivateElement(0x20, "How each slice came about", "SQ")

OBJECT_ELEMENTS: Final = (
    JOB, REVISION, INPUT_DIGEST, BUNDLE, BUNDLE_DIGEST, ENGINE, CONFIGURATION_DIGEST, SOFTWARE,
    COMPLETENESS, FINDINGS, UNCERTAIN_ABOVE, PREDECESSOR, CALIBRATION, UNTRUSTED_ABOVE,
    TISSUE_SHIFT,
)  # fmt: skip
SLICE_ELEMENTS: Final = (
    POSITION_KIND, ALPHA, NEIGHBOURS, EXEMPLAR, SIMILARITY, POSITION_DIFFERENCE, TAU, UNCERTAINTY,
    CALIBRATED, NEIGHBOUR_FRAMES, TRUSTED, WATERMARK,
)  # fmt: skip
#: elements of SLICE_ELEMENTS that every MR instance has; the others only with an exemplar
SLICE_ELEMENTS_ALWAYS: Final = (POSITION_KIND, ALPHA, NEIGHBOURS, UNCERTAINTY, CALIBRATED)

#: (0071,xx10): Guide.kind in the repertoire of VR CS
POSITION_KINDS: Final = {
    "measured": "MEASURED",
    "retrieved": "RETRIEVED",
    "interpolated": "INTERPOLATED",
}
