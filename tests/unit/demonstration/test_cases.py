"""The studies of the demonstration that are judged only."""

import pytest

from rebrain_node.demonstration.cases import DemoCase, demo_cases, judge_case
from rebrain_node.demonstration.study import load_head, simulate_study
from rebrain_node.limits_file import shipped_limits
from rebrain_node.pipeline import judge_study

CASES = demo_cases(load_head())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_study_of_the_demonstration_is_judged_rightly_in_a_sentence(case: DemoCase):
    verdict = judge_case(case.instances, shipped_limits())
    assert verdict.text == case.right, verdict.sentence
    assert len(verdict.sentence.split()) > 5


def test_every_study_of_the_demonstration_is_another():
    uids = {str(instance.StudyInstanceUID) for case in CASES for instance in case.instances}
    assert len(uids) == len(CASES) == len({case.name for case in CASES})


def test_refusals_are_judged_without_pixels():
    refused = [case for case in CASES if case.right.startswith("refused")]
    assert not any("PixelData" in i for case in refused for i in case.instances)


def test_the_study_that_is_synthesised_has_no_flag_in_the_header():
    (candidate,) = judge_study(simulate_study().instances, shipped_limits()).candidates
    assert (candidate.decision, candidate.codes) == ("accepted", ())
