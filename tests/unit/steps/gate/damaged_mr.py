"""Damages to the MR series and to attributes of every object; each violates exactly one rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from rebrain_node.domain import marks
from tests.unit.steps.gate.editable_set import EditableSet, store, stored

FOREIGN_UID = "2.25.123456789012345678901234567890"


# --- UIDs -------------------------------------------------------------------------------------


def record_of_another_instance(good: EditableSet) -> None:
    good.records = lambda records: [
        *records[:-1],
        replace(records[-1], series_instance_uid=FOREIGN_UID),
    ]


def big_endian(good: EditableSet) -> None:
    good.all[-1].file_meta.TransferSyntaxUID = ExplicitVRBigEndian


def random_series_uid(good: EditableSet) -> None:
    for dataset in good.mr:
        dataset.SeriesInstanceUID = FOREIGN_UID
    update_references(good, "MR")


def same_uid_on_two_objects(good: EditableSet) -> None:
    report, last = good.all[-2:]
    last.SOPInstanceUID = last.file_meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID


def uid_of_the_source(good: EditableSet) -> None:
    taken = good.mr[0].SeriesInstanceUID
    for dataset in [*good.source, *good.of_kind("MR", "PM", "SEG")]:
        dataset.FrameOfReferenceUID = taken


def mr_in_two_series(good: EditableSet) -> None:
    uid = int(good.mr[0].SeriesInstanceUID.removeprefix(marks.UID_ROOT)) ^ 1
    good.mr[-1].SeriesInstanceUID = f"{marks.UID_ROOT}{uid}"
    update_references(good, "MR")


def update_references(good: EditableSet, kind: str) -> None:
    """Put the current series of the objects of a kind into the key object selection."""
    named = {d.SOPInstanceUID: d.SeriesInstanceUID for d in good.of_kind(kind)}
    for dataset in good.of_kind("KOS"):
        for study in dataset.CurrentRequestedProcedureEvidenceSequence:
            for series in list(study.ReferencedSeriesSequence):
                moved: dict[str, list[Dataset]] = {}
                for reference in series.ReferencedSOPSequence:
                    uid = named.get(reference.ReferencedSOPInstanceUID, series.SeriesInstanceUID)
                    moved.setdefault(uid, []).append(reference)
                (uid, first), *others = moved.items()
                series.SeriesInstanceUID, series.ReferencedSOPSequence = uid, first
                for other, references in others:
                    item = Dataset()
                    item.SeriesInstanceUID, item.ReferencedSOPSequence = other, references
                    study.ReferencedSeriesSequence.append(item)


# --- identity --------------------------------------------------------------------------------


def setting(keyword: str, value: object, kinds: tuple[str, ...] = ("MR",)):
    """EditableSet one attribute of every object of some kinds; None deletes it."""

    def damage(good: EditableSet) -> None:
        for dataset in good.of_kind(*kinds):
            if value is None:
                del dataset[keyword]
            else:
                setattr(dataset, keyword, value)

    return damage


def other_name_on_the_last_slice(good: EditableSet) -> None:
    good.mr[-1].PatientName = "OTHER^PATIENT"


def letter_lost_from_the_name(good: EditableSet) -> None:
    good.mr[3].PatientName = "?ther^Zoë"


def character_set_dropped(good: EditableSet) -> None:
    good.mr[0].PatientName = good.source[0].PatientName
    good.mr[0].SpecificCharacterSet = "ISO_IR 109"  # Latin-3 has the same two letters


# --- marks -----------------------------------------------------------------------------------


def synthetic_data_no_on_one_slice(good: EditableSet) -> None:
    good.mr[5].SyntheticData = "NO"


def equipment_without(purpose: str):
    def damage(good: EditableSet) -> None:
        for dataset in good.mr:
            dataset.ContributingEquipmentSequence = [
                item
                for item in dataset.ContributingEquipmentSequence
                if item.PurposeOfReferenceCodeSequence[0].CodeValue != purpose
            ]

    return damage


def model_without_version(good: EditableSet) -> None:
    for item in good.mr[0].ContributingEquipmentSequence:
        if item.PurposeOfReferenceCodeSequence[0].CodeValue == marks.SYNTHESIZING_EQUIPMENT[0]:
            del item.SoftwareVersions


def only_the_standard_derivation_code(good: EditableSet) -> None:
    dataset = good.mr[0]
    dataset.DerivationCodeSequence = [
        item
        for item in dataset.DerivationCodeSequence
        if item.CodingSchemeDesignator != marks.CODING_SCHEME
    ]


# --- provenance ------------------------------------------------------------------------------


def block(dataset: Dataset):
    return dataset.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)


def leave_out(good: EditableSet, *kinds: str) -> None:
    good.objects = [pair for pair in good.objects if pair[0] not in kinds]
    good.companions = tuple(kind for kind in good.companions if kind not in kinds)


def private(element: marks.PrivateElement, value: object, index: int = 1):
    """EditableSet an element of one MR slice's private block; None deletes it.

    Report and key objects, which would differ too, are left out.
    """

    def damage(good: EditableSet) -> None:
        if element in marks.SLICE_ELEMENTS:
            leave_out(good, "SR", "KOS")
        own = block(good.mr[index])
        if element.offset in own:
            del own[element.offset]
        if value is not None:
            own.add_new(element.offset, element.vr, value)

    return damage


def private_block_removed(good: EditableSet) -> None:
    dataset = good.all[-1]
    for element in marks.OBJECT_ELEMENTS:
        if element.offset in block(dataset):
            del block(dataset)[element.offset]


def predecessor_of_a_first_revision(good: EditableSet) -> None:
    """State that the first result of a series replaces another one."""
    for dataset in good.all:
        block(dataset).add_new(marks.PREDECESSOR.offset, "UI", FOREIGN_UID)


def source_of_two_series(good: EditableSet) -> None:
    good.source[-1].SeriesInstanceUID = FOREIGN_UID


def source_image_unknown(good: EditableSet) -> None:
    item = good.mr[0].SourceImageSequence[0]
    item.ReferencedSOPInstanceUID = FOREIGN_UID
    private(marks.NEIGHBOURS, FOREIGN_UID, 0)(good)


def no_source_image(good: EditableSet) -> None:
    del good.mr[0].SourceImageSequence


def neighbours_of_another_gap(good: EditableSet) -> None:
    """Slice 2 lies between source slices 1 and 2; state 2 and 3."""
    uids = [dataset.SOPInstanceUID for dataset in good.source[1:3]]
    for item, uid in zip(good.mr[1].SourceImageSequence, uids, strict=True):
        item.ReferencedSOPInstanceUID = uid
    private(marks.NEIGHBOURS, uids)(good)


def measured_between_two_slices(good: EditableSet) -> None:
    """Slice 2 is synthesised between two measured ones; call it measured."""
    dataset = good.mr[1]
    private(marks.POSITION_KIND, "MEASURED")(good)
    dataset.ImageComments = "SYNTHETIC, not for diagnosis. This slice: measured."


def renamed_exemplar(good: EditableSet, name: str | None, index: int = 2) -> None:
    """Name another exemplar for a slice, in private block and Derivation Description."""
    private(marks.EXEMPLAR, name, index)(good)
    description = "SYNTHETIC: from CT" + ("" if name is None else f", guided by exemplar {name}")
    good.mr[index].DerivationDescription = description


def retrieved_without_exemplar(good: EditableSet) -> None:
    renamed_exemplar(good, None)


def exemplar_by_name(good: EditableSet) -> None:
    renamed_exemplar(good, "SMITH^JOHN 42")


def exemplar_of_an_interpolated_slice(good: EditableSet) -> None:
    renamed_exemplar(good, "e" * 32, index=1)


def referenced_series_short_of_one(good: EditableSet) -> None:
    good.mr[0].ReferencedSeriesSequence[0].ReferencedInstanceSequence.pop()


def lossy_source(good: EditableSet) -> None:
    good.source[2].LossyImageCompression = "01"


# --- geometry --------------------------------------------------------------------------------


def plane_position(frame: Dataset) -> Dataset:
    return frame.PlanePositionSequence[0]


def positions(good: EditableSet, kinds: tuple[str, ...] = ("MR", "PM", "SEG")):
    """Every data set that holds an image position, of MR, map and segmentation."""
    for dataset in good.of_kind(*kinds):
        if "PerFrameFunctionalGroupsSequence" in dataset:
            yield from (plane_position(f) for f in dataset.PerFrameFunctionalGroupsSequence)
        else:
            yield dataset


def orientations(good: EditableSet, kinds: tuple[str, ...] = ("MR", "PM", "SEG")):
    for dataset in good.of_kind(*kinds):
        if "SharedFunctionalGroupsSequence" in dataset:
            yield dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
        else:
            yield dataset


def axes(good: EditableSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cosines = np.array(good.mr[0].ImageOrientationPatient, dtype=float)
    return cosines[:3], cosines[3:], np.cross(cosines[:3], cosines[3:])


def move(holder: Dataset, shift: np.ndarray) -> None:
    position = np.array(holder.ImagePositionPatient, dtype=float) + shift
    holder.ImagePositionPatient = [f"{value:.8f}"[:16] for value in position]


def orient(holder: Dataset, row: np.ndarray, column: np.ndarray) -> None:
    holder.ImageOrientationPatient = [f"{value:.10f}"[:16] for value in (*row, *column)]


def distance(good: EditableSet, holder: Dataset) -> float:
    """Distance of a position from the first slice's along the normal, mm."""
    position = np.array(holder.ImagePositionPatient, dtype=float)
    return float(
        (position - np.array(good.mr[0].ImagePositionPatient, dtype=float)) @ axes(good)[2]
    )


def position_removed(good: EditableSet) -> None:
    """From a series without companions, which would differ too."""
    good.objects = [pair for pair in good.objects if pair[0] == "MR"]
    good.companions = ()
    del good.mr[-1].ImagePositionPatient


def position_infinite(good: EditableSet) -> None:
    position_removed(good)
    good.mr[-1].ImagePositionPatient = ["0", "1e999", "0"]


def cosines_too_long(good: EditableSet) -> None:
    row, column, _ = axes(good)
    for holder in orientations(good):
        orient(holder, row * 1.001, column)


def one_slice_of_another_pixel_spacing(good: EditableSet) -> None:
    good.mr[-1].PixelSpacing = [4.0001, 4.0]


def spacing_declared_wrongly(good: EditableSet) -> None:
    for dataset in good.mr:
        dataset.SpacingBetweenSlices = 4.9


def slices_shifted_along_columns(good: EditableSet) -> None:
    column = axes(good)[1]
    shifts = {id(holder): distance(good, holder) * 0.01 * column for holder in positions(good)}
    for holder in positions(good):
        move(holder, shifts[id(holder)])


def numbered_backwards(good: EditableSet) -> None:
    for number, dataset in enumerate(reversed(good.mr), start=1):
        dataset.InstanceNumber = number


def rotated_by_180_degrees(good: EditableSet) -> None:
    """Reverse both in-plane axes and the pixels: positions are right, the display is rotated."""
    row, column, _ = axes(good)
    rows, columns = good.mr[0].Rows, good.mr[0].Columns
    corner = 4.0 * (row * (columns - 1) + column * (rows - 1))
    for holder in orientations(good):
        orient(holder, -row, -column)
    for holder in positions(good):
        move(holder, corner)
    for dataset in good.mr:
        store(dataset, stored(dataset)[::-1, ::-1])


def tilted_against_the_ct(good: EditableSet) -> None:
    """Tilt the whole stack by a tenth of a degree."""
    row, column, normal = axes(good)
    angle = np.radians(0.1)
    new_column = np.cos(angle) * column + np.sin(angle) * normal
    new_normal = np.cross(row, new_column)
    shifts = {id(h): distance(good, h) * (new_normal - normal) for h in positions(good)}
    for holder in positions(good):
        move(holder, shifts[id(holder)])
    for holder in orientations(good):
        orient(holder, row, new_column)


def beyond_the_last_measured_slice(good: EditableSet) -> None:
    """Move the whole stack along the normal by 0.04 mm."""
    normal = axes(good)[2]
    for holder in positions(good):
        move(holder, -0.04 * normal)


def beside_the_patient(good: EditableSet) -> None:
    row = axes(good)[0]
    for holder in positions(good):
        move(holder, 300.0 * row)


def moved_within_the_field_of_view(good: EditableSet) -> None:
    column = axes(good)[1]
    for holder in positions(good):
        move(holder, -30.0 * column)


def mirrored(axis: int):
    def damage(good: EditableSet) -> None:
        for dataset in good.mr:
            store(dataset, np.flip(stored(dataset), axis))

    return damage


def in_reverse_order(good: EditableSet) -> None:
    images = [stored(dataset) for dataset in good.mr]
    for dataset, image in zip(good.mr, reversed(images), strict=True):
        store(dataset, image)


# --- pixels ----------------------------------------------------------------------------------


def pixels_too_short(good: EditableSet) -> None:
    good.mr[5].PixelData = good.mr[5].PixelData[:-2]


def pixels_beyond_twelve_bits(good: EditableSet) -> None:
    image = stored(good.mr[4])
    image[30, 20] = 4096
    store(good.mr[4], image)


def one_slice_empty(good: EditableSet) -> None:
    store(good.mr[5], np.zeros_like(stored(good.mr[5])))


def saturated(good: EditableSet) -> None:
    for dataset in good.mr[1::2]:
        image = stored(dataset).astype(float)
        store(dataset, np.where(image > 1500, 4095, image))


def repeated(good: EditableSet) -> None:
    store(good.mr[3], stored(good.mr[2]))


#: name to (code of the rule that finds it, damage)
DAMAGES = {
    "claims a watermark": ("GATE-WATERMARK", private(marks.WATERMARK, marks.WATERMARK_SCHEME)),
    "record of another series": ("GATE-FOUR-NAMES", record_of_another_instance),
    "big endian": ("GATE-TRANSFER-SYNTAX", big_endian),
    "random UID": ("GATE-UID-FORM", random_series_uid),
    "same UID twice": ("GATE-UID-UNIQUE", same_uid_on_two_objects),
    "UID of the source": ("GATE-UID-FOREIGN", uid_of_the_source),
    "two MR series": ("GATE-SERIES", mr_in_two_series),
    "other name": ("GATE-PATIENT", other_name_on_the_last_slice),
    "letter lost": ("GATE-PATIENT", letter_lost_from_the_name),
    "other patient id": ("GATE-PATIENT", setting("PatientID", "OTHER")),
    "birth date gone": ("GATE-PATIENT", setting("PatientBirthDate", "")),
    "weight gone": ("GATE-PATIENT", setting("PatientWeight", None)),
    "other accession": ("GATE-STUDY", setting("AccessionNumber", "B2")),
    "study date moved": ("GATE-STUDY-TIME", setting("StudyDate", "20250101")),
    "content date of today": ("GATE-DATES", setting("ContentDate", "20261124")),
    "creation date of a clock": ("GATE-DATES", setting("InstanceCreationDate", "20261124")),
    "other character set": ("GATE-CHARACTER-SET", character_set_dropped),
    "no synthetic mark": ("GATE-SYNTHETIC-DATA", setting("SyntheticData", None)),
    "synthetic mark NO once": ("GATE-SYNTHETIC-DATA", synthetic_data_no_on_one_slice),
    "qualified as product": (
        "GATE-CONTENT-QUALIFICATION",
        setting("ContentQualification", "PRODUCT"),
    ),
    "image type original": (
        "GATE-IMAGE-TYPE",
        setting("ImageType", ["ORIGINAL", "PRIMARY", "OTHER", "SYNTHETIC"]),
    ),
    "image type without SYNTHETIC": (
        "GATE-IMAGE-TYPE",
        setting("ImageType", ["DERIVED", "SECONDARY", "OTHER"]),
    ),
    "series description T1": ("GATE-SERIES-DESCRIPTION", setting("SeriesDescription", "T1 ax")),
    "series number of a scanner": ("GATE-SERIES-NUMBER", setting("SeriesNumber", 4)),
    "manufacturer of the scanner": ("GATE-MANUFACTURER", setting("Manufacturer", "PHANTOM")),
    "model of the scanner": ("GATE-MODEL-NAME", setting("ManufacturerModelName", "ELLIPSOID")),
    "no position kind in comments": (
        "GATE-KIND-IN-WORDS",
        setting("ImageComments", "SYNTHETIC, not for diagnosis"),
    ),
    "comment without warning": (
        "GATE-COMMENTS",
        lambda good: setattr(good.mr[0], "ImageComments", "SYNTHETIC. This slice: measured."),
    ),
    "no synthesizing equipment": ("GATE-SYNTHESIZING-EQUIPMENT", equipment_without("109100")),
    "model without version": ("GATE-SYNTHESIZING-EQUIPMENT", model_without_version),
    "no scanner named": ("GATE-CONTRIBUTING-EQUIPMENT", equipment_without("109101")),
    "no node named": ("GATE-CONTRIBUTING-EQUIPMENT", equipment_without("109102")),
    "derivation description without mark": (
        "GATE-DERIVATION-DESCRIPTION",
        lambda good: setattr(good.mr[1], "DerivationDescription", "resampled"),
    ),
    "derivation code lost": ("GATE-DERIVATION-CODE", only_the_standard_derivation_code),
    "coding scheme unknown": (
        "GATE-CODING-SCHEME",
        setting("CodingSchemeIdentificationSequence", None),
    ),
    "burned-in text": ("GATE-BURNED-IN", setting("BurnedInAnnotation", "YES")),
    "no recognizable features": ("GATE-RECOGNIZABLE", setting("RecognizableVisualFeatures", "NO")),
    "modality CT": ("GATE-MODALITY", setting("Modality", "CT")),
    "spin echo claimed": ("GATE-SCANNING-SEQUENCE", setting("ScanningSequence", "SE")),
    "repetition time claimed": ("GATE-TIMINGS", setting("RepetitionTime", 500)),
    "echo time claimed": ("GATE-TIMINGS", setting("EchoTime", 12)),
    "field strength claimed": ("GATE-MAGNET", setting("MagneticFieldStrength", 3)),
    "coil claimed": ("GATE-MAGNET", setting("ReceiveCoilName", "HEAD")),
    "tube voltage copied": ("GATE-TUBE", setting("KVP", 120)),
    "station copied": ("GATE-DEVICE", setting("StationName", "CT1")),
    "private block gone": ("GATE-PRIVATE-BLOCK", private_block_removed),
    "other bundle in the block": (
        "GATE-PRIVATE-VALUES",
        private(marks.BUNDLE_DIGEST, "f" * 64),
    ),
    "predecessor of a first revision": ("GATE-PREDECESSOR", predecessor_of_a_first_revision),
    "source of two series": ("GATE-SOURCE-SERIES", source_of_two_series),
    "no position kind": ("GATE-SLICE-BLOCK", private(marks.POSITION_KIND, None)),
    "unknown position kind": ("GATE-SLICE-BLOCK", private(marks.POSITION_KIND, "GUESSED")),
    "uncertainty not a number": ("GATE-SLICE-BLOCK", private(marks.UNCERTAINTY, float("nan"))),
    "untrusted slice not marked": ("GATE-TRUSTED", private(marks.TRUSTED, None)),
    "untrusted slice marked trusted": ("GATE-TRUSTED", private(marks.TRUSTED, "YES")),
    "marked without a limit": ("GATE-TRUSTED", private(marks.UNTRUSTED_ABOVE, None)),
    "retrieved without exemplar": ("GATE-RETRIEVED", retrieved_without_exemplar),
    "exemplar by a person's name": ("GATE-RETRIEVED", exemplar_by_name),
    "retrieved without similarity": ("GATE-RETRIEVED", private(marks.SIMILARITY, None, 2)),
    "retrieved without threshold": ("GATE-RETRIEVED", private(marks.TAU, None, 2)),
    "retrieved without position difference": (
        "GATE-RETRIEVED",
        private(marks.POSITION_DIFFERENCE, None, 2),
    ),
    "similarity not a number": ("GATE-RETRIEVED", private(marks.SIMILARITY, float("nan"), 2)),
    "exemplar of an interpolated slice": ("GATE-RETRIEVED", exemplar_of_an_interpolated_slice),
    "exemplar below the threshold": ("GATE-SIMILARITY", private(marks.SIMILARITY, 0.1, 2)),
    "similarity above 1": ("GATE-SIMILARITY", private(marks.SIMILARITY, 1.1, 2)),
    "exemplar not in description": (
        "GATE-EXEMPLAR-IN-WORDS",
        lambda good: setattr(good.mr[2], "DerivationDescription", "SYNTHETIC: from CT"),
    ),
    "exemplar only in description": (
        "GATE-EXEMPLAR-IN-WORDS",
        lambda good: setattr(good.mr[1], "DerivationDescription", "SYNTHETIC: by an exemplar"),
    ),
    "comments of another position kind": (
        "GATE-KIND-IN-WORDS",
        lambda good: setattr(
            good.mr[0], "ImageComments", "SYNTHETIC, not for diagnosis. This slice: retrieved."
        ),
    ),
    "no source image": ("GATE-SOURCE-IMAGES", no_source_image),
    "source image unknown": ("GATE-SOURCE-IMAGES", source_image_unknown),
    "neighbours of another gap": ("GATE-BRACKET", neighbours_of_another_gap),
    "alpha of another position": ("GATE-BRACKET", private(marks.ALPHA, 0.9)),
    "measured where nothing was": ("GATE-MEASURED", measured_between_two_slices),
    "source series incomplete": ("GATE-REFERENCED-SERIES", referenced_series_short_of_one),
    "lossy source not stated": ("GATE-LOSSY", lossy_source),
    "other frame of reference": (
        "GATE-FRAME-OF-REFERENCE",
        setting("FrameOfReferenceUID", FOREIGN_UID),
    ),
    "position gone": ("GATE-PLANE", position_removed),
    "position infinite": ("GATE-PLANE", position_infinite),
    "beside the patient": ("GATE-OVERLAP", beside_the_patient),
    "direction cosines too long": ("GATE-ORTHONORMAL", cosines_too_long),
    "one slice of other pixels": ("GATE-STACK", one_slice_of_another_pixel_spacing),
    "spacing declared wrongly": ("GATE-SPACING", spacing_declared_wrongly),
    "sheared": ("GATE-SHEAR", slices_shifted_along_columns),
    "numbered backwards": ("GATE-ORDER", numbered_backwards),
    "upside down": ("GATE-AXES", rotated_by_180_degrees),
    "tilted against the CT": ("GATE-PARALLEL", tilted_against_the_ct),
    "beyond the measured slices": ("GATE-EXTENT", beyond_the_last_measured_slice),
    "no thickness": ("GATE-THICKNESS", setting("SliceThickness", None)),
    "moved within the field of view": ("GATE-OVERLAP", moved_within_the_field_of_view),
    "mirrored left to right": ("GATE-FLIP", mirrored(1)),
    "mirrored front to back": ("GATE-FLIP", mirrored(0)),
    "slices in reverse order": ("GATE-FLIP", in_reverse_order),
    "eight bits": ("GATE-PIXEL-FORMAT", setting("BitsStored", 8)),
    "signed": ("GATE-PIXEL-FORMAT", setting("PixelRepresentation", 1)),
    "pixels too short": ("GATE-STRUCTURE", pixels_too_short),
    "beyond twelve bits": ("GATE-PIXEL-RANGE", pixels_beyond_twelve_bits),
    "one slice empty": ("GATE-PIXEL-CONSTANT", one_slice_empty),
    "saturated": ("GATE-PIXEL-SATURATED", saturated),
    "two equal slices": ("GATE-PIXEL-REPEATED", repeated),
    "no window": ("GATE-WINDOW", setting("WindowCenter", None)),
    "window outside the values": ("GATE-WINDOW", setting("WindowCenter", 90000)),
}
