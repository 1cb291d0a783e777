"""Every code that a series can be refused or flagged with: what it means and what helps.

The one list of the codes: `Finding` takes no other, the site's policy covers those marked
``site``, and the tables of docs/refusals.md are made of it. A code is never renamed or given a
second meaning: ledgers, audit logs and written objects keep it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

#: of the codes of the gate, which its rules define (docs/gate.md)
GATE_PREFIX = "GATE-"

#: what a finding does: always refuse, always flag, or what ``[policy]`` of the limits says
Policy = Literal["refuse", "flag", "site"]
Topic = Literal["series", "identity", "geometry", "suitability"]


@dataclass(frozen=True, kw_only=True)
class FindingCode:
    """One code. Texts are for a radiographer; keys of limits stand in backticks."""

    topic: Topic
    meaning: str
    limit: str  #: unit of the value, and the limit or its key
    remedy: str
    found_by: str  #: steps, or the room outside them
    policy: Policy = "refuse"
    #: what a limits file that was written before the code existed means by its silence
    unless_named: Literal["refuse", "flag"] | None = None


CODES: Mapping[str, FindingCode] = {
    "SRC-SYNTHETIC": FindingCode(
        topic="series",
        meaning=(
            "the series is itself synthetic, of this node or another: one of seven marks on one "
            "instance is enough (Synthetic Data, Image Type, manufacturer, model name, "
            "description, synthesizing equipment, private block)"
        ),
        limit="marks, 0",
        remedy="send the measured CT",
        found_by="select, check",
    ),
    "SRC-WATERMARK": FindingCode(
        topic="series",
        meaning=(
            "the pixels carry the watermark of a synthetic MR of this software, although no header "
            "says so: the header was removed or replaced ([marks](marks.md))"
        ),
        limit="probability of a false positive, 1e-6 a slice",
        remedy="send the measured CT, and find out who removed the marks from the header",
        found_by="check",
    ),
    "MODALITY": FindingCode(
        topic="series",
        meaning="not CT, or not a CT image object (secondary capture, dose page)",
        limit="CT",
        remedy="nothing; the series is not meant for synthesis",
        found_by="select",
    ),
    "LOCALIZER": FindingCode(
        topic="series",
        meaning="every image is a scout (topogram)",
        limit="Image Type",
        remedy="nothing; the series is not meant for synthesis",
        found_by="select",
    ),
    "LOCALIZER-SET-ASIDE": FindingCode(
        topic="series",
        meaning="a scout lies within the axial series; it is left out and nothing of it is judged",
        limit="images, 0",
        remedy="nothing",
        found_by="select",
        policy="flag",
    ),
    "DERIVED": FindingCode(
        topic="series",
        meaning=(
            "computed from other images; Image Type is not ORIGINAL\\PRIMARY. A near-axial "
            "reformat with a soft kernel is taken with this flag where the policy says so and no "
            "original series of the study will do; projections (MIP, MinIP), differences, "
            "averages, blends, captures and other planes are always refused"
        ),
        limit="Image Type, `series.plane_tolerance_deg`",
        remedy="send the original axial series",
        found_by="select",
        policy="site",
        unless_named="refuse",
    ),
    "IMAGE-TYPE": FindingCode(
        topic="series",
        meaning=(
            "Image Type names images that are no plain slices in HU: maps of perfusion or of a "
            "material (virtual non-contrast, iodine, effective Z), bolus monitoring, images for "
            "processing"
        ),
        limit="Image Type",
        remedy="send the plain axial series",
        found_by="select",
    ),
    "SPECTRAL": FindingCode(
        topic="series",
        meaning=(
            "monoenergetic images, whose grey and white matter differ from those of a tube "
            "voltage; images of a dual-energy scan that are not monoenergetic are always a flag"
        ),
        limit="Image Type",
        remedy="send the conventional or mixed series",
        found_by="select",
        policy="site",
        unless_named="refuse",
    ),
    "TEMPORAL": FindingCode(
        topic="series",
        meaning="the same positions at several times: CT perfusion, dynamic or monitoring series",
        limit="times a position, 2",
        remedy="send the series before contrast",
        found_by="select",
    ),
    "KERNEL": FindingCode(
        topic="series",
        meaning=(
            "reconstructed with a sharp kernel (bone, lung), by the vendor's rules `[[kernels]]`"
        ),
        limit="soft",
        remedy="send the soft-tissue series",
        found_by="select",
    ),
    "KERNEL-UNKNOWN": FindingCode(
        topic="series",
        meaning="no rule knows the kernel",
        limit="soft",
        remedy="add the kernel to `[[kernels]]`",
        found_by="select",
        policy="site",
    ),
    "THICKNESS": FindingCode(
        topic="series",
        meaning="slices thinner or thicker than the model learned",
        limit="mm, `series.thickness_mm`",
        remedy="send the thick-slice series",
        found_by="select",
    ),
    "TOO-FEW": FindingCode(
        topic="series",
        meaning="too few slices for a head",
        limit="slices, `series.slices`",
        remedy="send the whole series",
        found_by="select, assemble, preprocess",
    ),
    "NOT-PREFERRED": FindingCode(
        topic="series",
        meaning=(
            "would do, but another series of the study ranks higher; the sentence says by which"
            " preference"
        ),
        limit="preference",
        remedy="nothing; see [selection.md](selection.md)",
        found_by="select",
    ),
    "SECOND-CHOICE": FindingCode(
        topic="series",
        meaning=(
            "another series of the study ranks higher, but was refused after the selection, when "
            "its volume was checked; the sentence says which and why"
        ),
        limit="series, 0",
        remedy="look at the findings of the other series",
        found_by="select",
        policy="flag",
    ),
    "INCOMPLETE": FindingCode(
        topic="series",
        meaning=(
            "the head is not covered: short, numbered from later than 1, cut below its top or above"
            " the base of the skull; the sentence says which end is missing"
        ),
        limit=(
            "mm, cm2 or share, `series.coverage_mm`, `head.top_cm2`, `head.vertex_share`, "
            "`head.base_cm2`, `head.base_depth_mm`"
        ),
        remedy="send the whole series",
        found_by="select, check",
        policy="site",
    ),
    "SIZE": FindingCode(
        topic="series",
        meaning="a matrix or a number of slices that no head CT has",
        limit="pixels, slices, `series.matrix`, `series.slices`",
        remedy="check the sender",
        found_by="select, scan",
    ),
    "ID-MIXED": FindingCode(
        topic="identity",
        meaning=(
            "the slices differ in one of 14 identity fields, or the study holds images of two "
            "patients (another Patient ID, birth date or name); the sentence names the fields"
        ),
        limit="equal",
        remedy="correct the identity at the source and send again",
        found_by="select, check, assemble",
    ),
    "ID-NAME": FindingCode(
        topic="identity",
        meaning=(
            "another object of the study, e.g. a dose page, writes the name otherwise: in another "
            "case, order or script, or under the same Patient ID and birth date"
        ),
        limit="equal",
        remedy="make the names equal in the archive; the name of the CT series is used",
        found_by="select",
        policy="flag",
    ),
    "ID-EMPTY": FindingCode(
        topic="identity",
        meaning="neither Patient ID nor Patient's Name: the result could not be filed with its CT",
        limit="a Patient ID",
        remedy="enter the patient at the scanner or the archive",
        found_by="select",
    ),
    "ID-PARTIAL": FindingCode(
        topic="identity",
        meaning=(
            "Patient ID is empty: an archive that gives an ID of its own may file CT and result "
            "under two patients"
        ),
        limit="a Patient ID",
        remedy="enter the Patient ID at the scanner or the archive",
        found_by="select",
        policy="flag",
    ),
    "CANCELLED": FindingCode(
        topic="series",
        meaning=(
            "an operator refused the series with `rebrain-node queue cancel` before it was "
            "synthesised; this holds until a late instance of the series arrives"
        ),
        limit="none",
        remedy="`rebrain-node queue retry`, if it is to be judged again",
        found_by="by an operator",
    ),
    "ID-DISPUTED": FindingCode(
        topic="identity",
        meaning=(
            "instances of the series arrived again under the same SOP Instance UIDs with other "
            "content, e.g. a corrected name or Patient ID, or came in another study: the series is "
            "held until the site decides; a series that has ended is flagged"
        ),
        limit="instances, 0",
        remedy="decide with `rebrain-node queue dispute`",
        found_by="at reception",
    ),
    "CHARSET": FindingCode(
        topic="identity",
        meaning=(
            "a text of patient or study cannot be read in the character set that is declared: what "
            "cannot be read cannot be copied; texts that are not copied do not count"
        ),
        limit="readable",
        remedy="correct Specific Character Set (0008,0005)",
        found_by="select, write",
    ),
    "DUP-TAG": FindingCode(
        topic="identity",
        meaning=(
            "a data set holds an element twice; a reader would take one of the two, e.g. the "
            "other patient's name"
        ),
        limit="once",
        remedy="repair the sender",
        found_by="scan, at reception",
    ),
    "GEOM-ORIENTATION": FindingCode(
        topic="geometry",
        meaning=(
            "not axial (by the cosines, whatever the description says), not parallel, no "
            "position and orientation; or the head stands upside down or looks backwards, so "
            "that the orientation was written wrongly"
        ),
        limit=(
            "degrees or share, `series.plane_tolerance_deg`, `geometry.direction_deg`, "
            "`head.dome_share`, `head.turn_deg`"
        ),
        remedy="send the axial series; correct Patient Position at the scanner",
        found_by="select, assemble, check, preprocess",
    ),
    "GEOM-GAP": FindingCode(
        topic="geometry",
        meaning="a slice is missing: a distance larger than the groups of the series explain",
        limit="mm, usual mm",
        remedy="send the whole series again",
        found_by="select, check",
    ),
    "GEOM-DUPLICATE": FindingCode(
        topic="geometry",
        meaning="two slices at one position",
        limit="slices, `geometry.duplicate_mm`",
        remedy="send the series without the repeated slices",
        found_by="select, check, assemble",
    ),
    "GEOM-TWO-PASSES": FindingCode(
        topic="geometry",
        meaning=(
            "the series holds more than one pass over the same part of the head, and none that "
            "is even and covers all of it, or they cannot be told apart"
        ),
        limit="passes, 1",
        remedy="send one pass as a series of its own",
        found_by="select, assemble",
    ),
    "GEOM-PASS-CHOSEN": FindingCode(
        topic="geometry",
        meaning=(
            "the series holds more than one pass over the same part of the head; the first whole "
            "one is used and the others are left out"
        ),
        limit="passes, 1",
        remedy="send the pass that is meant as a series of its own",
        found_by="select",
        policy="flag",
    ),
    "GEOM-PAIRS-RECENTRED": FindingCode(
        topic="geometry",
        meaning=(
            "a scanner with two to four slices in a rotation and a tilted gantry: the header "
            "places the slices of a rotation beside each other by a constant, which was undone by "
            "the outline of the head"
        ),
        limit="mm, `geometry.displacement_mm`",
        remedy="nothing; compare the outline of the result with the CT",
        found_by="check",
        policy="flag",
    ),
    "GEOM-PAIRS": FindingCode(
        topic="geometry",
        meaning=(
            "a scanner with several slices in a rotation and a tilted gantry, whose rotations lie "
            "beside each other by differing amounts"
        ),
        limit="mm, `artefacts.jump_mm`",
        remedy="send the series reconstructed without tilt",
        found_by="check",
    ),
    "GEOM-SPACING": FindingCode(
        topic="geometry",
        meaning=(
            "uneven distances, a slice beside the line of its neighbours, too many groups, "
            "differing matrix or pixel size"
        ),
        limit=(
            "mm, `geometry.step_mm`, `geometry.displacement_mm`, `geometry.groups`, "
            "`geometry.pixel_spacing_mm`"
        ),
        remedy="reconstruct the series anew",
        found_by="select, check, assemble",
    ),
    "GEOM-TILT": FindingCode(
        topic="geometry",
        meaning="gantry tilt beyond what is corrected exactly",
        limit="degrees, `geometry.tilt_deg`",
        remedy="reconstruct without tilt",
        found_by="select, check",
    ),
    "GEOM-TILT-TAG": FindingCode(
        topic="geometry",
        meaning=(
            "Gantry/Detector Tilt (0018,1120) and the positions of the slices differ by more "
            "than 2 degrees; the positions are used"
        ),
        limit="degrees, 2",
        remedy="make sure that the images were resampled after the scan",
        found_by="select",
        policy="flag",
    ),
    "GEOM-REFERENCE": FindingCode(
        topic="geometry",
        meaning="no frame of reference: the result could not be laid over the CT",
        limit="UID",
        remedy="repair the sender",
        found_by="assemble",
    ),
    "GEOM-SIZE": FindingCode(
        topic="geometry",
        meaning="the head does not fit the grid of the model",
        limit="share cut off",
        remedy="nothing; the model does not fit",
        found_by="preprocess",
    ),
    "PIXEL-DATA": FindingCode(
        topic="geometry",
        meaning="no pixels, colour, or pixels that do not decode",
        limit="image",
        remedy="send the images again",
        found_by="assemble",
    ),
    "HU-UNIT": FindingCode(
        topic="suitability",
        meaning=(
            "Rescale Type (0028,1054) names another unit than HU: monoenergetic, effective-Z, "
            "electron density and the like"
        ),
        limit="unit, HU",
        remedy="send the CT series in HU",
        found_by="select",
    ),
    "HU": FindingCode(
        topic="suitability",
        meaning=(
            "the values are not Hounsfield units: no air, wrapped, windowed to 8 bits, wrong "
            "slope, intercept or sign, or air, brain and bone not where they belong"
        ),
        limit="bits, share or HU, `hounsfield.*`",
        remedy="send the original CT; check the calibration",
        found_by="select, check, assemble",
    ),
    "HU-PADDING": FindingCode(
        topic="suitability",
        meaning=(
            "Pixel Padding Value (0028,0120) is as dense as tissue: it is not believed, and the "
            "pixels of this value count as measured"
        ),
        limit="HU, outside -900 to 2900",
        remedy="correct it at the scanner or archive that writes it",
        found_by="check",
        policy="flag",
    ),
    "NOT-HEAD": FindingCode(
        topic="suitability",
        meaning=(
            "not a head: no ring of skull, not its size, nothing but one material inside (a "
            "plastic phantom), the same section from end to end (a cylinder, a trunk), or the "
            "header says so"
        ),
        limit="mm, ml, HU, `head.*`, `series.body_parts`, `series.field_of_view_mm`",
        remedy="correct Body Part Examined if it is a head",
        found_by="select, check, preprocess",
    ),
    "BODY-PART": FindingCode(
        topic="suitability",
        meaning=(
            "Body Part Examined holds a word that is not known; the pixels tell whether it is a "
            "head"
        ),
        limit="word, `series.body_parts`",
        remedy="add the word of the site to `series.body_parts`",
        found_by="select",
        policy="flag",
    ),
    "AGE": FindingCode(
        topic="suitability",
        meaning="outside the ages of the model, by the header or by the size of the skull",
        limit="years or cm2, `series.age_years`, `head.adult_section_cm2`",
        remedy="nothing",
        found_by="select, check",
        policy="site",
    ),
    "AGE-UNKNOWN": FindingCode(
        topic="suitability",
        meaning=(
            "neither an age nor a birth date with a date of the examination (an age of 0 is what "
            "de-identification leaves); or the two differ by more than 1.5 years"
        ),
        limit="years, `series.age_years`",
        remedy="send age or birth date; the size of the skull is judged from the pixels",
        found_by="select",
        policy="site",
        unless_named="flag",
    ),
    "CONTRAST": FindingCode(
        topic="suitability",
        meaning=(
            "contrast was given, by the header or by vessels as bright as contrast; where elements "
            "contradict each other, or only the name of the protocol says so, always a flag"
        ),
        limit="ml, `artefacts.contrast_hu`, `artefacts.contrast_ml`",
        remedy="send the series without contrast",
        found_by="select, check",
        policy="site",
    ),
    "METAL": FindingCode(
        topic="suitability",
        meaning="metal in the head above the teeth",
        limit="mm3, `artefacts.metal_hu`, `artefacts.metal_mm3`",
        remedy="nothing",
        found_by="check",
        policy="site",
    ),
    "CRANIECTOMY": FindingCode(
        topic="suitability",
        meaning="the vault has an opening",
        limit="cm2, `head.opening_mm`, `head.opening_cm2`",
        remedy="nothing",
        found_by="check",
        policy="site",
    ),
    "NOISE": FindingCode(
        topic="suitability",
        meaning="grey and white matter drown in noise; a sharp kernel shows here too",
        limit="HU, `artefacts.noise_hu`",
        remedy="send a smoother reconstruction",
        found_by="check",
        policy="site",
    ),
    "MOTION": FindingCode(
        topic="suitability",
        meaning="the skull jumps between slices, or its edge is doubled",
        limit="mm or HU, `artefacts.jump_mm`, `artefacts.edge_hu`",
        remedy="repeat the scan if the clinic agrees",
        found_by="check",
        policy="site",
    ),
    "TISSUE-LEVEL": FindingCode(
        topic="suitability",
        meaning=(
            "the level of brain tissue lies farther from the one that the bundle expects than is "
            "corrected, or too little brain is seen to measure it; only with a bundle whose recipe "
            "has `tissue_level_hu`"
        ),
        limit="HU, 12",
        remedy="have the calibration of the scanner checked; read the result with suspicion",
        found_by="preprocess",
        policy="flag",
    ),
    "OOD": FindingCode(
        topic="suitability",
        meaning=(
            "a head that looks like nothing the model learned: a large bleeding, mostly fluid, "
            "the face turned aside, or far from the domain of the bundle "
            "([out-of-domain.md](out-of-domain.md))"
        ),
        limit=(
            "ml, share, degrees or times the usual distance, `domain.*`, `head.turn_deg`, the "
            "threshold of the bundle"
        ),
        remedy="read the result with suspicion",
        found_by="check, ood",
        policy="site",
    ),
    "NO-DOMAIN": FindingCode(
        topic="suitability",
        meaning=(
            "the bundle has no out-of-distribution model, so that nothing says whether the series "
            "is of the kind that the network was made for ([out-of-domain.md](out-of-domain.md))"
        ),
        limit="OOD model of the bundle",
        remedy="read the result with suspicion; `rebrain-train fit-ood` adds one",
        found_by="ood",
        policy="flag",
    ),
    "FEATURELESS": FindingCode(
        topic="suitability",
        meaning=(
            "the synthetic volume shows next to nothing: too little entropy, contrast of soft "
            "tissue, or agreement of its edges with those of the CT"
        ),
        limit="ratio of the entropies, 0.9; standard deviation, 0.07; correlation, 0.2",
        remedy="use another bundle: this one was trained too little, or not for such CT",
        found_by="examine",
    ),
    "UNCERTAIN": FindingCode(
        topic="suitability",
        meaning=(
            "the network is not sure of too many slices: their mean uncertainty is above the "
            "recipe's limit on a slice, and their share above its limit on a series "
            "([uncertainty.md](uncertainty.md))"
        ),
        limit="share, `abstain.series_share` of the recipe",
        remedy="read the result with suspicion; the marked slices say where",
        found_by="estimate",
        policy="site",
    ),
    "SOURCE-HAS-MORE": FindingCode(
        topic="suitability",
        meaning=(
            "the source of the series has instances that did not arrive, and they did not come "
            "within the wait ([receiving.md](receiving.md))"
        ),
        limit="verdict, `completeness.verify_wait_s` of the settings",
        remedy="send the series again; what is missing makes a new revision",
        found_by="worker",
        policy="site",
        unless_named="refuse",
    ),
    "NOT-VERIFIED": FindingCode(
        topic="suitability",
        meaning=(
            "the site takes only series whose source confirmed the number of instances "
            "(`completeness.verify`), and the source could not be asked or has fewer than arrived; "
            "the sentence says why"
        ),
        limit="verdict",
        remedy="see to what the sentence names, then `queue retry`",
        found_by="worker",
    ),
    "FAILED": FindingCode(
        topic="suitability",
        meaning=(
            "the series could not be judged or processed in the number of tries allowed; the "
            "sentence says why"
        ),
        limit="tries",
        remedy="see the audit log, and report its sentence as a defect",
        found_by="worker",
    ),
}


def is_code(code: str) -> bool:
    """Whether a finding may have this code."""
    return code in CODES or code.startswith(GATE_PREFIX)
