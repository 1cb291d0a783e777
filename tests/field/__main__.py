"""Print the table of all cases: expected against what the node says."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rebrain_node.limits_file import shipped_limits
from tests.field.case import Case, Verdict, cases, verdict


def judge(case: Case) -> Verdict:
    """Make the input of a case in a temporary folder and judge it with the default limits."""
    with tempfile.TemporaryDirectory(prefix="field-") as folder:
        case.make(Path(folder))
        return verdict(Path(folder), shipped_limits(), pixels=case.pixels)


def main() -> int:
    """Print one line a case; return the number of those that differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only cases whose name or group holds one of them")
    parser.add_argument("--sentences", action="store_true", help="print every finding below a case")
    arguments = parser.parse_args()
    wrong = total = 0
    for case in cases():
        if arguments.words and not any(w in f"{case.group} {case.name}" for w in arguments.words):
            continue
        total += 1
        got = judge(case)
        agrees = got.text == case.expected
        wrong += not agrees
        print(
            f"{'ok' if agrees else 'WRONG':5}  {case.group:12}  {case.name:44}  "
            f"{case.expected:28}  {got.text}"
        )
        if arguments.sentences or not agrees:
            for finding in got.findings:
                print(f"         {finding.severity} {finding.code}: {finding.sentence}")
    print(f"{total} cases, {wrong} wrong")
    return min(wrong, 99)


if __name__ == "__main__":
    sys.exit(main())
