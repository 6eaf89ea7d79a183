"""Add up the JUnit files pytest wrote and print 'N passed, N failed, N skipped' on a line of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def tally(folder: Path) -> tuple[int, int, int]:
    """(passed, failed, skipped) over every .xml file of a folder; errors count as failed."""
    passed = failed = skipped = 0
    for path in sorted(folder.glob("*.xml")):
        for suite in ElementTree.parse(path).getroot().iter("testsuite"):
            total, bad = (
                int(suite.get("tests", 0)),
                int(suite.get("failures", 0)) + int(suite.get("errors", 0)),
            )
            left_out = int(suite.get("skipped", 0))
            passed, failed, skipped = passed + total - bad - left_out, failed + bad, skipped + left_out
    return passed, failed, skipped


if __name__ == "__main__":
    counts = tally(Path(sys.argv[1]))
    extra_passed, extra_failed = (int(n) for n in sys.argv[2:4]) if len(sys.argv) >= 4 else (0, 0)
    print(f"{counts[0] + extra_passed} passed, {counts[1] + extra_failed} failed, {counts[2]} skipped")
