"""Each row of docs/objects.md is compared with objects that were really written.

A row whose value is a list of literals, ``empty``, ``absent`` or ``the source's`` is compared as it
stands. `CHECKS` holds how any other row is compared; it takes the literals from the page, so that a
row which becomes false fails, and so does a row that nothing compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_keyword, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from rebrain_node.domain import marks
from rebrain_node.domain.job import Predecessor, Provenance
from rebrain_node.domain.uncertainty import UncertaintyInterpretation
from rebrain_node.domain.volume import StoredRange, SyntheticVolume
from rebrain_node.model.tissue_level import shift_to
from rebrain_node.steps.write import AuditAnchor, ObjectOptions, write
from rebrain_node.steps.write.source import NO_DATE
from tests.support.phantoms import enhanced_ct, head_ct
from tests.support.reference import private_codes
from tests.support.synthetic_volumes import provenance, synthetic_volume

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "objects.md").read_text(encoding="utf-8")
TINY = {
    "rows": 16,
    "columns": 16,
    "pixel_spacing_mm": (14.0, 14.0),
    "slice_distances_mm": (0.0, 12.0, 24.0),
}
BEFORE = Predecessor(
    revision=1, mr_series_uid="2.25.1", report_series_uid="2.25.2", report_uid="2.25.3"
)
CALIBRATED = UncertaintyInterpretation(alpha=0.1, subjects=25, untrusted_above=0.12)


@dataclass(frozen=True, kw_only=True)
class Written:
    """One set as it was written, and what it was written from."""

    source: Dataset
    instances: list[Dataset]
    volume: SyntheticVolume
    made_by: Provenance
    options: ObjectOptions
    kinds: dict[str, list[Dataset]]

    @property
    def others(self) -> set[str]:
        """SOP Instance UIDs of all objects but the last."""
        return {d.SOPInstanceUID for kind, ds in self.kinds.items() if kind != "KOS" for d in ds}


def identifier() -> list[Dataset]:
    item = Dataset()
    item.PatientID = "other"
    return [item]


@pytest.fixture(scope="module")
def sets() -> dict[str, Written]:
    classic = head_ct(
        **TINY,
        extra={
            "LossyImageCompression": "01", "LossyImageCompressionRatio": 4.0,
            "LossyImageCompressionMethod": "ISO_10918_1", "PatientAge": "063Y",
            "OtherPatientIDsSequence": identifier(), "ClinicalTrialSponsorName": "none",
        },
    )  # fmt: skip
    enhanced = [enhanced_ct(**TINY)]
    return {
        "classic": written(classic, ObjectOptions()),
        "enhanced": written(
            classic, ObjectOptions(mr="enhanced", map_precision="float32"), completeness="VERIFIED"
        ),
        "calibrated": written(
            enhanced, ObjectOptions(), CALIBRATED, predecessor=BEFORE, completeness="INCOMPLETE"
        ),
    }


def written(
    instances: list[Dataset],
    options: ObjectOptions,
    meaning: UncertaintyInterpretation | None = None,
    **made: object,
) -> Written:
    volume = synthetic_volume(instances, **({} if meaning is None else {"meaning": meaning}))
    if meaning is not None:
        volume = replace(volume, prepared=replace(volume.prepared, tissue=shift_to(28.0, 33.0)))
    made_by = provenance(revision=2 if "predecessor" in made else 1, **made)
    anchor = AuditAnchor(sequence=1, sha256="a" * 64, signature="1 now key signature")
    kinds: dict[str, list[Dataset]] = {}
    for each in write(volume, instances, made_by, (), options, anchor).instances:
        kinds.setdefault(each.kind, []).append(pydicom.dcmread(BytesIO(each.content)))
    return Written(
        source=instances[0],
        instances=instances,
        volume=volume,
        made_by=made_by,
        options=options,
        kinds=kinds,
    )


@dataclass(frozen=True)
class Row:
    """One row of the page."""

    section: str  #: first word of its heading; ``Every object`` and ``Every image`` whole
    attribute: str
    value: str

    @property
    def keywords(self) -> list[str]:
        """Attributes of the standard that the row is about."""
        return [w for w in re.findall(r"\w+", self.attribute) if tag_for_keyword(w) is not None]

    @property
    def literals(self) -> list[str]:
        """What stands in backticks, names of settings left out."""
        words = re.findall(r"`([^`]+)`", self.value)
        return [word for word in words if not re.match(r"(objects|output)\.", word)]


def rows() -> Iterator[Row]:
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        section = re.match(r"Every \w+|Enhanced MR|\w+", heading)[0]
        for block in body.split("\n\n"):
            lines = [line for line in block.splitlines() if line.startswith("|")]
            if lines and lines[0].startswith("| attribute |"):
                for line in lines[2:]:
                    attribute, value = [cell.strip() for cell in line.split("|")[1:3]]
                    yield Row(section, attribute, value)


ROWS = list(rows())


def text(value: Any) -> str:
    if isinstance(value, MultiValue | list):
        return "\\".join(text(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def has(dataset: Dataset, keyword: str, expected: str) -> bool:
    if expected == "absent":
        return keyword not in dataset
    if expected == "empty":
        return keyword in dataset and dataset[keyword].is_empty
    return keyword in dataset and text(dataset[keyword].value) == expected.strip("`")


def is_of_source(row: Row, dataset: Dataset, source: Dataset) -> bool:
    absent = "empty" if "empty where absent" in row.value else "absent"
    return all(
        dataset[k].value == source[k].value if source.get(k) else has(dataset, k, absent)
        for k in row.keywords
    )


def holds(row: Row, run: Written, dataset: Dataset) -> bool:
    """Whether a row is true of one object."""
    check = CHECKS.get((row.section, re.match(r"[\w ]+", row.attribute)[0].strip()))
    if check is not None:
        return bool(check(run, dataset, row.literals))
    if row.value.startswith("the source's"):
        return is_of_source(row, dataset, run.source)
    values = row.value.split(", ")
    values = values * len(row.keywords) if len(values) == 1 else values
    return all(has(dataset, k, v) for k, v in zip(row.keywords, values, strict=True))


def codes_of(items: Any) -> list[str]:
    return [item.get("CodeValue") or item.LongCodeValue for item in items]


def instances_of(dataset: Dataset) -> set[str]:
    """SOP Instance UIDs that the evidence of a document lists."""
    return {
        instance.ReferencedSOPInstanceUID
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


def number_of(run: Written, dataset: Dataset) -> int:
    """Which slice of the series a classic image is, from 0."""
    return [d.SOPInstanceUID for d in run.kinds["MR"]].index(dataset.SOPInstanceUID)


def kind_of(run: Written, dataset: Dataset) -> str:
    return next(k for k, ds in run.kinds.items() if any(d is dataset for d in ds))


def series_numbers(run: Written, dataset: Dataset, words: list[str]) -> bool:
    place = marks.SERIES_ORDER.index(kind_of(run, dataset))
    base, step = map(int, words)
    return dataset.SeriesNumber == base + int(run.source.SeriesNumber) + step * place


def series_description(run: Written, dataset: Dataset, words: list[str]) -> bool:
    found = dataset.SeriesDescription
    return found.startswith(words[0] + " ") and (found == words[1]) == (
        kind_of(run, dataset) == "MR"
    )


def dates(run: Written, dataset: Dataset, words: list[str]) -> bool:
    names = ("Acquisition", "Content", "Series", "Study")
    pairs = [(run.source.get(f"{n}Date"), run.source.get(f"{n}Time")) for n in names]
    expected = next(pair for pair in pairs if pair[0])
    content = dataset.ContentDate, dataset.ContentTime
    series = dataset.SeriesDate, dataset.SeriesTime
    return content == series == expected and tuple(words) == NO_DATE


def equipment(_: Written, dataset: Dataset, words: list[str]) -> bool:
    items = dataset.ContributingEquipmentSequence
    purposes = [codes_of(item.PurposeOfReferenceCodeSequence)[0] for item in items]
    return purposes == words and "DeviceUID" in items[1]


def referenced_series(run: Written, dataset: Dataset, _: list[str]) -> bool:
    source, mr = run.source.SeriesInstanceUID, run.kinds["MR"][0].SeriesInstanceUID
    expected = {"MR": [source], "SC": [mr]}.get(kind_of(run, dataset), [mr, source])
    series = dataset.ReferencedSeriesSequence
    counts = {source: len(run.instances), mr: len(run.kinds["MR"])}
    return [s.SeriesInstanceUID for s in series] == expected and all(
        len(s.ReferencedInstanceSequence) == counts[s.SeriesInstanceUID] for s in series
    )


def plane(run: Written, dataset: Dataset, _: list[str]) -> bool:
    grid = run.volume.grid
    guide = run.volume.guides[number_of(run, dataset)]
    position = grid.plane_origin_mm(guide.target.distance_mm)
    cosines = [*grid.row_direction, *grid.column_direction]
    return (
        np.allclose(dataset.ImagePositionPatient, position, atol=1e-6)
        and np.allclose(dataset.ImageOrientationPatient, cosines)
        and [float(v) for v in dataset.PixelSpacing] == [grid.pixel_mm] * 2
    )


def source_images(run: Written, dataset: Dataset, words: list[str]) -> bool:
    guide, prepared = run.volume.guides[number_of(run, dataset)], run.volume.prepared
    around = dict.fromkeys((guide.target.below, guide.target.above))
    items = dataset.SourceImageSequence
    return [i.ReferencedSOPInstanceUID for i in items] == [
        *dict.fromkeys(prepared.sop_instance_uids[n] for n in around)
    ] and all(
        [*codes_of(i.PurposeOfReferenceCodeSequence), i.SpatialLocationsPreserved] == words
        and ("ReferencedFrameNumber" in i) == (prepared.frame_numbers[0] is not None)
        for i in items
    )


def derivation(run: Written, dataset: Dataset, words: list[str]) -> bool:
    guide, found = run.volume.guides[number_of(run, dataset)], dataset.DerivationDescription
    return (
        found.startswith(words[0])
        and run.made_by.bundle_digest[:16] in found
        and ((guide.exemplar or "none") in found) == (guide.exemplar is not None)
    )


def derivation_codes(_: Written, dataset: Dataset, words: list[str]) -> bool:
    items = dataset.DerivationCodeSequence
    return [*codes_of(items), items[1].CodingSchemeDesignator] == words


def groups(names: str) -> Callable[[Written, Dataset, list[str]], bool]:
    """Check that functional groups are there, shared or of each frame."""

    def check(_: Written, dataset: Dataset, __: list[str]) -> bool:
        frames = [*dataset.PerFrameFunctionalGroupsSequence]
        held = frames if "Position" in names else [*dataset.SharedFunctionalGroupsSequence]
        return all(name in group for group in held for name in names.split())

    return check


def shared_groups(run: Written, dataset: Dataset, words: list[str]) -> bool:
    (shared,) = dataset.SharedFunctionalGroupsSequence
    (values,) = shared.PixelValueTransformationSequence
    region = shared.FrameAnatomySequence[0].AnatomicRegionSequence[0].CodeMeaning
    names = "PixelMeasuresSequence PlaneOrientationSequence FrameVOILUTSequence"
    found = [region, str(values.RescaleSlope), str(values.RescaleIntercept)]
    return (
        groups(names)(run, dataset, words)
        and found == words
        and bool(shared.MRImageFrameTypeSequence)
    )


def frame_groups(run: Written, dataset: Dataset, words: list[str]) -> bool:
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence, int(words[0])):
        (content,), (origin,) = group.FrameContentSequence, group.DerivationImageSequence
        block = group.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)
        if not (
            content.InStackPositionNumber == number
            and content.FrameComments.startswith(marks.COMMENT_PREFIX)
            and origin.DerivationDescription
            and origin.SourceImageSequence
            and "PlanePositionSequence" in group
            and len(block[marks.SLICE_PROVENANCE.offset].value) == 1
        ):
            return False
    return True


def indexed_by(keyword: str) -> Callable[[Written, Dataset, list[str]], bool]:
    return lambda _, dataset, __: (
        [dictionary_keyword(i.DimensionIndexPointer) for i in dataset.DimensionIndexSequence]
        == [keyword]
    )


def one_a_slice(run: Written, dataset: Dataset, _: list[str]) -> bool:
    return dataset.NumberOfFrames == len(run.volume.guides)


def stored_map(run: Written, dataset: Dataset, words: list[str]) -> bool:
    precision, bits, other, factor, other_bits = words
    if "FloatPixelData" in dataset:
        return (run.options.map_precision, dataset.BitsAllocated) == (precision, int(bits))
    largest = round(float(run.volume.uncertainty.max()) * int(factor))
    stored = np.frombuffer(dataset.PixelData, "<u2")
    return (run.options.map_precision, dataset.BitsAllocated, stored.max()) == (
        other,
        int(other_bits),
        largest,
    )


def mapping(run: Written, dataset: Dataset, words: list[str]) -> bool:
    unit, scheme, half_width, expected_error, ours, label, uncalibrated = words
    (shared,) = dataset.SharedFunctionalGroupsSequence
    (found,) = shared.RealWorldValueMappingSequence
    (units,) = found.MeasurementUnitsCodeSequence
    quantity = found.QuantityDefinitionSequence[0].ConceptCodeSequence
    meaning = run.volume.meaning
    return (
        units.CodeValue, units.CodingSchemeDesignator, codes_of(quantity)[0],
        quantity[0].CodingSchemeDesignator, found.LUTLabel,
    ) == (
        unit, scheme, expected_error if meaning.alpha is None else half_width, ours,
        label if meaning.calibrated else uncalibrated,
    )  # fmt: skip


def map_window(run: Written, dataset: Dataset, words: list[str]) -> bool:
    (window,) = dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
    one = 1 if run.options.map_precision == "float32" else 65535
    largest, function = words
    return (
        window.VOILUTFunction == function
        and float(window.WindowWidth) == pytest.approx(one * float(largest))
        and float(window.WindowCenter) == pytest.approx(one * float(largest) / 2)
    )


def map_description(run: Written, dataset: Dataset, words: list[str]) -> bool:
    label = run.volume.meaning.label
    return label in dataset.ContentDescription and (words[0] in label) == (
        not run.volume.meaning.calibrated
    )


def segments(run: Written, dataset: Dataset, words: list[str]) -> bool:
    bundle = run.made_by.bundle_name
    return [s.SegmentAlgorithmType for s in dataset.SegmentSequence] == words * 2 and all(
        s.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == bundle
        for s in dataset.SegmentSequence
    )


def segment_frames(run: Written, dataset: Dataset, _: list[str]) -> bool:
    uncertain = run.volume.head & (run.volume.uncertainty > run.options.uncertain_above)
    return dataset.NumberOfFrames == sum(
        int(mask.any(axis=(1, 2)).sum()) for mask in (uncertain, ~run.volume.head)
    )


def preview_source(run: Written, dataset: Dataset, _: list[str]) -> bool:
    (item,) = dataset.SourceImageSequence
    return item.ReferencedSOPInstanceUID in {d.SOPInstanceUID for d in run.kinds["MR"]}


def predecessor(run: Written, dataset: Dataset, _: list[str]) -> bool:
    before = run.made_by.predecessor
    if before is None:
        return "PredecessorDocumentsSequence" not in dataset
    (study,) = dataset.PredecessorDocumentsSequence
    (report,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    return report.ReferencedSOPInstanceUID == before.report_uid


def report_evidence(run: Written, dataset: Dataset, _: list[str]) -> bool:
    source = {d.SOPInstanceUID for d in run.instances}
    return instances_of(dataset) == source | run.others - {dataset.SOPInstanceUID}


CHECKS: dict[tuple[str, str], Callable[[Written, Dataset, list[str]], object]] = {
    ("Every object", "SoftwareVersions"): lambda r, d, _: (
        d.SoftwareVersions == r.made_by.software_version
    ),
    ("Every object", "DeviceSerialNumber"): lambda r, d, _: (
        d.DeviceSerialNumber == r.made_by.bundle_digest
    ),
    ("Every object", "SeriesDescription"): series_description,
    ("Every object", "SeriesNumber"): series_numbers,
    ("Every object", "ContentDate"): dates,
    ("Every object", "SOPInstanceUID"): lambda _, d, w: (
        d.SOPInstanceUID.startswith(w[0]) and d.SeriesInstanceUID.startswith(w[0])
    ),
    ("Every object", "SOPClassUID"): lambda _, d, __: d.SOPClassUID.name in PAGE,
    ("Every object", "Modality"): lambda r, d, w: (
        d.Modality == w[marks.SERIES_ORDER.index(kind_of(r, d))] and len(w) == 7
    ),
    ("Every object", "InstanceNumber"): lambda r, d, w: (
        d.InstanceNumber == int(w[0]) + [*map(id, r.kinds[kind_of(r, d)])].index(id(d))
    ),
    ("Every object", "ContributingEquipmentSequence"): equipment,
    ("Every object", "CodingSchemeIdentificationSequence"): lambda _, d, w: (
        [i.CodingSchemeDesignator for i in d.CodingSchemeIdentificationSequence] == w
    ),
    ("Every object", "private block"): lambda _, d, w: d[marks.PRIVATE_GROUP, 0x0010].value == w[0],
    ("Every object", "file meta"): lambda _, d, w: (
        [d.file_meta.ImplementationClassUID, d.file_meta.ImplementationVersionName] == w
    ),
    ("Every image", "ImageComments"): lambda _, d, w: (
        d.ImageComments.startswith(w[0]) and w[1] in d.ImageComments
    ),
    ("Every image", "LossyImageCompression"): lambda r, d, w: (
        d.LossyImageCompression == w[0 if r.source.get("LossyImageCompressionRatio") else 1]
        and d.get("LossyImageCompressionRatio") == r.source.get("LossyImageCompressionRatio")
        and d.get("LossyImageCompressionMethod") == r.source.get("LossyImageCompressionMethod")
        and w == ["01", "00"]
    ),
    ("Every image", "ReferencedSeriesSequence"): referenced_series,
    ("MR", "ImagePositionPatient"): plane,
    ("MR", "SliceThickness"): lambda r, d, _: (
        {float(d.SliceThickness), float(d.SpacingBetweenSlices)} == {r.volume.prepared.spacing_mm}
    ),
    ("MR", "SourceImageSequence"): source_images,
    ("MR", "DerivationDescription"): derivation,
    ("MR", "DerivationCodeSequence"): derivation_codes,
    ("MR", "Rows"): lambda r, d, _: (
        (d.Rows, d.Columns) == (r.volume.grid.rows, r.volume.grid.columns)
    ),
    ("MR", "PixelData"): lambda r, d, _: np.array_equal(
        d.pixel_array, r.volume.stored_range.stored(r.volume.intensity[number_of(r, d)])
    ),
    ("MR", "WindowCenter"): lambda _, d, __: (d.WindowCenter, d.WindowWidth) == (2048, 4096),
    ("Enhanced MR", "ImageType"): lambda _, d, w: (
        [text(d.ImageType)]
        == w
        == [text(d.SharedFunctionalGroupsSequence[0].MRImageFrameTypeSequence[0].FrameType)]
    ),
    ("Enhanced MR", "NumberOfFrames"): one_a_slice,
    ("Enhanced MR", "SharedFunctionalGroupsSequence"): shared_groups,
    ("Enhanced MR", "PerFrameFunctionalGroupsSequence"): frame_groups,
    ("Enhanced MR", "DimensionOrganizationSequence"): indexed_by("InStackPositionNumber"),
    ("Enhanced MR", "SourceImageEvidenceSequence"): lambda r, d, _: (
        {
            i.ReferencedSOPInstanceUID
            for i in d.SourceImageEvidenceSequence[0]
            .ReferencedSeriesSequence[0]
            .ReferencedSOPSequence
        }
        == {i.SOPInstanceUID for i in r.instances}
    ),
    ("PM", "FloatPixelData or PixelData"): stored_map,
    ("PM", "RealWorldValueMappingSequence"): mapping,
    ("PM", "ContentDescription"): map_description,
    ("PM", "FrameVOILUTSequence"): map_window,
    ("PM", "SharedFunctionalGroupsSequence"): groups(
        "PlaneOrientationSequence PixelMeasuresSequence RealWorldValueMappingSequence"
    ),
    ("PM", "PerFrameFunctionalGroupsSequence"): groups(
        "PlanePositionSequence DerivationImageSequence"
    ),
    ("PM", "NumberOfFrames"): one_a_slice,
    ("PM", "DimensionOrganizationSequence"): indexed_by("ImagePositionPatient"),
    ("SEG", "SegmentSequence"): segments,
    ("SEG", "NumberOfFrames"): segment_frames,
    ("SC", "DerivationDescription"): lambda _, d, w: d.DerivationDescription.startswith(w[0]),
    ("SC", "SourceImageSequence"): preview_source,
    ("PR", "ContentLabel"): lambda _, d, w: (
        [d.ContentLabel, d.ContentDescription[: len(w[1])]] == w
    ),
    ("PR", "PresentationCreationDate"): lambda _, d, __: (
        (d.PresentationCreationDate, d.PresentationCreationTime) == (d.ContentDate, d.ContentTime)
    ),
    ("PR", "ReferencedSeriesSequence"): lambda r, d, _: (
        {i.ReferencedSOPInstanceUID for i in d.ReferencedSeriesSequence[0].ReferencedImageSequence}
        == {m.SOPInstanceUID for m in r.kinds["MR"]}
    ),
    ("PR", "GraphicLayerSequence"): lambda _, d, w: (
        [
            *(layer.GraphicLayer for layer in d.GraphicLayerSequence),
            *(
                one.UnformattedTextValue
                for each in d.GraphicAnnotationSequence
                for one in each.TextObjectSequence
            ),
        ]
        == w
    ),
    ("PR", "DisplayedAreaSelectionSequence"): lambda r, d, _: (
        d.DisplayedAreaSelectionSequence[0].PresentationSizeMode == "SCALE TO FIT"
        and len(d.SoftcopyVOILUTSequence) == 1
    ),
    ("SR", "CurrentRequestedProcedureEvidenceSequence"): report_evidence,
    ("SR", "PredecessorDocumentsSequence"): predecessor,
    ("SR", "ConceptNameCodeSequence"): lambda _, d, w: codes_of(d.ConceptNameCodeSequence) == w,
    ("SR", "ContentTemplateSequence"): lambda _, d, w: (
        [i.TemplateIdentifier for i in d.ContentTemplateSequence] == w
    ),
    ("SR", "ContentSequence"): lambda _, d, __: len(d.ContentSequence) > 1,
    ("KOS", "ConceptNameCodeSequence"): lambda _, d, w: codes_of(d.ConceptNameCodeSequence) == w,
    ("KOS", "CurrentRequestedProcedureEvidenceSequence"): lambda r, d, _: (
        instances_of(d) == r.others
    ),
}


def subjects(row: Row, sets: dict[str, Written]) -> Iterator[tuple[Written, Dataset]]:
    """Objects of every set that a row is about."""
    for name, run in sets.items():
        for kind, datasets in run.kinds.items():
            if kind == "MR":
                own = row.section == ("Enhanced MR" if name == "enhanced" else "MR")
            else:
                own = row.section == kind
            image = kind in {"MR", "PM", "SEG", "SC"}
            if own or row.section == "Every object" or (image and row.section == "Every image"):
                yield from ((run, d) for d in datasets)


def is_true(row: Row, sets: dict[str, Written]) -> bool:
    found = [holds(row, run, dataset) for run, dataset in subjects(row, sets)]
    return bool(found) and all(found)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section}: {row.attribute[:40]}")
def test_a_row_is_true_of_every_object_it_is_about(row, sets):
    assert is_true(row, sets)


@pytest.mark.parametrize(
    ("row", "literal"),
    [(row, each) for row in ROWS for each in dict.fromkeys(row.literals)],
    ids=lambda value: (
        value if isinstance(value, str) else f"{value.section} {value.attribute[:30]}"
    ),
)
def test_another_value_on_the_page_would_be_refused(row, literal, sets):
    false = replace(row, value=row.value.replace(f"`{literal}`", "`7`"))
    assert not is_true(false, sets)


def test_a_row_that_nothing_compares_is_refused(sets):
    assert not is_true(Row("MR", "ImageType", "as the CT"), sets)


def concepts(dataset: Dataset) -> Iterator[str]:
    """Codes of our own scheme in an object."""
    for element in dataset.iterall():
        if element.VR == "SQ":
            ours = [i for i in element.value if i.get("CodingSchemeDesignator") == "99REBRAIN"]
            yield from codes_of(i for i in ours if "CodeMeaning" in i)


def test_every_code_of_the_page_is_written_and_every_code_written_is_on_the_page(sets):
    found = {
        code
        for run in sets.values()
        for ds in run.kinds.values()
        for d in ds
        for code in concepts(d)
    }
    assert found == set(private_codes())


def test_every_attribute_that_is_written_is_explained(sets):
    found = {
        element.keyword
        for run in sets.values()
        for datasets in run.kinds.values()
        for dataset in datasets
        for element in dataset
        if not element.tag.is_private
    }
    assert sorted(keyword for keyword in found if keyword not in PAGE) == []


def private(dataset: Dataset) -> dict[int, str]:
    """VR by offset of the elements of the private block."""
    elements = dataset.group_dataset(marks.PRIVATE_GROUP)
    return {e.tag.element & 0xFF: e.VR for e in elements if e.tag.element > 0xFF}


@pytest.mark.parametrize("name", ["classic", "calibrated"])
def test_the_private_block_holds_the_elements_of_the_page_where_it_says(sets, name):
    run, calibrated = sets[name], name == "calibrated"
    conditions = {
        "": True,
        "where there are any": False,  # these sets have no finding
        "where an earlier revision gave a set": calibrated,
        "where the recipe sets one": calibrated,
        "where the recipe sets a limit": calibrated,
        "where the recipe sets a level": calibrated,
        "where the CT is an Enhanced CT": calibrated,
        "where `marks.watermark` is on": False,  # these sets are written without
    }
    shared = {e.offset: e.vr for e in marks.OBJECT_ELEMENTS if conditions[e.condition]}
    for kind in ("PM", "SEG", "SC", "PR", "SR", "KOS"):
        assert private(run.kinds[kind][0]) == shared
    for guide, image in zip(run.volume.guides, run.kinds["MR"], strict=True):
        conditions["where retrieved"] = guide.kind == "retrieved"
        own = {e.offset: e.vr for e in marks.SLICE_ELEMENTS if conditions[e.condition]}
        assert private(image) == shared | own


def test_the_words_of_the_marks_stand_on_the_page():
    for word in (marks.SERIES_DESCRIPTION_PREFIX, marks.PRIVATE_CREATOR, marks.CODING_SCHEME):
        assert word in PAGE


def test_the_first_table_names_the_class_of_each_object(sets):
    for kind, (first, *_) in sets["classic"].kinds.items():
        assert re.search(rf"^\| {kind} \| [^|]* \| {first.SOPClassUID.name} \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("black", "white"), [(0, 4095), (100, 1500)])
def test_window_and_pixels_span_the_recipe_s_range(black, white):
    source = head_ct(**TINY)
    volume = replace(synthetic_volume(source), stored_range=StoredRange(black=black, white=white))
    derived = write(volume, source, provenance(), (), ObjectOptions(companions=()))
    for each, intensity in zip(derived.instances, volume.intensity, strict=True):
        image = pydicom.dcmread(BytesIO(each.content))
        assert image.WindowCenter - image.WindowWidth / 2 == black
        assert image.WindowCenter + image.WindowWidth / 2 == white + 1
        assert np.array_equal(image.pixel_array, volume.stored_range.stored(intensity))


def test_every_option_is_explained():
    for field in fields(ObjectOptions):
        assert f"`objects.{field.name}`" in PAGE or (
            (field.name == "ink" and "`marks.visible`" in PAGE)
            or (field.name == "watermark" and "`marks.watermark`" in PAGE)
        )
