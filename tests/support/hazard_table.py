"""Writes docs/hazards.md from the hazard ids of tests: ``python -m tests.support.hazard_table``.

A test bears an id by ``@pytest.mark.hazard("H1")``; tests that hold a hazard under another heading
are listed in ``ALSO``. An id without any test stands with the work that is open.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/hazards.md"

HAZARDS = {
    "H1": "slices of two patients in one series",
    "H2": "result under the wrong patient",
    "H3": "flip or rotation",
    "H4": "wrong frame of reference",
    "H5": "missing, duplicate or uneven slices, tilt",
    "H6": "synthetic image read as acquired",
    "H7": "not a head",
    "H8": "contrast agent",
    "H9": "craniectomy, metal",
    "H10": "child",
    "H11": "motion, noise",
    "H12": "wrong HU scale",
    "H13": "out of the model's domain",
    "H14": "lesion invented or removed",
    "H15": "not finite, constant or saturated pixels",
    "H16": "uncertainty map missing or shifted",
    "H17": "wrong model version",
    "H18": "partial or superseded input",
    "H19": "late result, silent backlog",
    "H20": "duplicate result",
    "H21": "used for measurement, or by another program as acquired",
    "H22": "refused and nobody knows",
    "H23": "wrong dates",
    "H24": "CT overwritten or PACS flooded",
}

#: tests that hold a hazard without bearing its mark: file under tests/, then their names
ALSO: dict[str, dict[str, tuple[str, ...]]] = {
    "H1": {
        "unit/instance/test_scan.py": (
            "test_the_second_patient_name_that_pydicom_would_keep_is_refused",
            "test_a_duplicate_hidden_in_an_unknown_sequence_is_found",
        ),
    },
    "H2": {
        "integration/test_written_objects.py": (
            "test_every_object_is_valid_and_of_the_source_s_patient",
        ),
        "unit/steps/write/test_source.py": (
            "test_text_is_copied_byte_by_byte_also_after_it_was_looked_at",
        ),
    },
    "H3": {
        "integration/test_written_objects.py": (
            "test_an_independent_reader_finds_the_series_where_the_grid_is",
        ),
    },
    "H4": {
        "integration/test_written_objects.py": (
            "test_an_independent_reader_finds_the_series_where_the_grid_is",
        ),
    },
    "H6": {
        "unit/steps/write/test_mr_series.py": (
            "test_every_slice_bears_every_mark",
            "test_nothing_pretends_to_a_scanner",
        ),
    },
    "H15": {
        "unit/steps/write/test_mr_series.py": (
            "test_a_value_that_is_not_finite_stops_the_writing",
        ),
    },
    "H16": {
        "unit/steps/write/test_companions.py": (
            "test_the_map_lies_on_the_series_frame_by_slice",
            "test_the_map_gives_back_the_uncertainty",
        ),
    },
    "H17": {
        "unit/model/test_bundle.py": (
            "test_a_damaged_bundle_is_refused_by_name",
            "test_no_single_changed_byte_goes_unseen",
        ),
    },
    "H18": {
        "unit/store/test_ledger.py": (
            "test_a_late_instance_makes_a_new_revision_whatever_the_state",
            "test_a_judgement_over_older_instances_is_superseded",
        ),
        "unit/reception/test_completeness.py": (
            "test_complete_means_quiet_or_waited_for_long_enough",
        ),
    },
    "H20": {
        "unit/store/test_outbox.py": (
            "test_the_same_set_again_changes_nothing",
            "test_a_second_set_of_one_revision_is_refused",
        ),
    },
    "H21": {
        "unit/steps/write/test_mr_series.py": ("test_every_slice_bears_every_mark",),
    },
    "H22": {
        "unit/store/test_ledger.py": (
            "test_judgements_are_written_with_findings_and_audit_rows",
            "test_a_transition_shows_the_findings_that_caused_it",
        ),
    },
    "H23": {
        "unit/steps/write/test_source.py": (
            "test_the_content_date_is_the_source_s",
            "test_a_date_that_is_none_is_passed_over",
        ),
    },
    "H24": {
        "unit/steps/write/test_identity.py": ("test_uids_are_valid_and_apart",),
        "unit/store/test_ledger.py": ("test_the_same_bytes_again_make_no_new_work",),
    },
}

#: what is still to be done, in plain words; stands beside the tests there are, if any
OPEN: dict[str, str] = {}

#: what no test can take away, and what is left to the people who use the node
RESIDUAL = {
    "H13": (
        "a head whose orientation is written wrongly within the plane is seen in most scans, not "
        "in all: the face must be in the picture. A learned distance from the training data is to "
        "be added with the encoder of the retrieval."
    ),
    "H14": (
        "lesions that the CT does not show, or of a kind not tried here, may be drawn, changed or "
        "lost. An infarct of 16 mm radius changed the brain more than 30 mm away by 4 % of the "
        "display range in the mean. The uncertainty map and the segmentation of voxels not to be "
        "trusted tell where, uncalibrated; never for diagnosis."
    ),
    "H21": (
        "a person or a program that ignores every mark can still measure on the images: nothing "
        "in DICOM prevents it. The receiving site must know the marks."
    ),
}


def marked() -> Iterator[tuple[str, str, str]]:
    """List (hazard id, file under tests/, test) of all tests that bear an id."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        name = path.relative_to(ROOT / "tests").as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for hazard in _ids(node):
                    yield hazard, name, node.name


def _ids(test: ast.FunctionDef) -> list[str]:
    return [
        str(argument.value)
        for decorator in test.decorator_list
        for call in ast.walk(decorator)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "hazard"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    ]


def names_in(file: str) -> set[str]:
    """List the tests of a file under tests/; none where the file is absent."""
    path = ROOT / "tests" / file
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def holding() -> dict[str, list[tuple[str, str]]]:
    """List (file, test) for each hazard id, sorted, each once."""
    found: dict[str, set[tuple[str, str]]] = {hazard: set() for hazard in HAZARDS}
    for hazard, file, name in marked():
        found.setdefault(hazard, set()).add((file, name))
    for hazard, files in ALSO.items():
        found[hazard] |= {(file, name) for file, names in files.items() for name in names}
    return {hazard: sorted(tests) for hazard, tests in found.items()}


def page() -> str:
    """Write the page."""
    lines = [
        "# Hazards and the tests that hold them",
        "",
        "Generated by `python -m tests.support.hazard_table` from the ids on the tests. A test",
        "fails when this page is stale, or when an id has neither a test nor a line that says what",
        "is open. The hazards follow ISO 14971 in form; research software, never for diagnosis.",
        "",
    ]
    for hazard, tests in holding().items():
        lines += [f"## {hazard} {HAZARDS[hazard]}", ""]
        lines += [f"- {_sentence(name)} (`tests/{file}`)" for file, name in tests]
        if hazard in OPEN:
            lines += [f"- **open:** {OPEN[hazard]}"]
        if hazard in RESIDUAL:
            lines += [f"- **residual risk:** {RESIDUAL[hazard]}"]
        lines += [""]
    return "\n".join(lines)


def _sentence(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
