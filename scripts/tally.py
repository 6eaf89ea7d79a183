"""Add up what scripts/test.sh and .ci/run left: JUnit files, and the names of failed checks.

Prints 'N passed, N failed, N skipped' on a line of its own. Passed counts tests only; a check that failed without
a failed test of its own (a style check, a crash, too little coverage) counts as one failure.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def tally(folder: Path) -> tuple[int, int, int]:
    """(passed, failed, skipped) over a folder of NAME.xml files and its list `failed-checks`, one NAME a line."""
    passed = failed = skipped = 0
    told = set()  # checks whose failure shows in the counts of their tests
    for path in sorted(folder.glob("*.xml")):
        for suite in ElementTree.parse(path).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            left_out = int(suite.get("skipped", 0))
            passed += int(suite.get("tests", 0)) - bad - left_out
            failed, skipped = failed + bad, skipped + left_out
            if bad:
                told.add(path.stem)
    checks = folder / "failed-checks"
    names = checks.read_text("utf-8").splitlines() if checks.is_file() else []
    return passed, failed + sum(name not in told for name in names), skipped


if __name__ == "__main__":
    print("{} passed, {} failed, {} skipped".format(*tally(Path(sys.argv[1]))))
