"""How much the tests notice: lines of the Qt-free rooms are changed at random, one at a time.

    python scripts/mutate.py --number 64 --seed 1 --at-least 58

One run of all tests without Qt, under coverage, tells which tests execute which line and how long each takes; that is
kept in a file until the code or the tests change. Each change is then made in a copy of the tree, where the tests that
execute its line run until one of them fails, quickest files first. A line that runs on import is tried with all tests
that execute something of its file; one that no test executes has survived, also where a child process executes it. A
change that makes the tests hang is caught.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue

from chosen_tests import CHOSEN, TIMES
from coverage import CoverageData
from mutations import Mutation, choose

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = {"ui", "layers", "demo"}  # rooms that need napari or a window
PLUGINS = ("scripts.no_qt", "scripts.chosen_tests", "no:pytest-qt", "no:napari", "no:cacheprovider")
NO_LIMIT = ("-o", "timeout=0")  # of a test: under load it ends what is well, and a run has a limit of its own
PATIENCE = 60.0  # seconds that a run may take beyond three times its tests' own
SURVIVED, FAILED, BROKEN = 0, 1, (2, 3)  # pytest's exit status; broken: the tests cannot even be collected


@dataclass(frozen=True)
class Outcome:
    """What became of a mutation. before, after: its line. how: "fails", "hangs", "passes" or "no test". tests: how
    many were chosen; left_out: how many more execute it, which would have taken too long."""

    file: str
    line: int
    before: str
    after: str
    caught: bool
    how: str
    tests: int
    left_out: int


@dataclass
class Coverage:
    """lines: the tests that execute each line of each file. times: seconds of each test that passes."""

    lines: dict[Path, dict[int, set[str]]] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)

    def tests_for(self, mutation: Mutation, seconds: float) -> tuple[list[str], int]:
        """The tests that meet a mutation, as many as fit into so many seconds; and how many are left out."""
        known = self.lines.get(mutation.path, {})
        places = mutation.executed or tuple(known)
        met = {test for line in places for test in known.get(line, ())} & self.times.keys()
        files: dict[str, float] = defaultdict(float)
        for test in met:
            files[file_of(test)] += self.times[test]
        taken: list[str] = []
        total = 0.0
        for test in sorted(
            met, key=lambda test: (files[file_of(test)], file_of(test), self.times[test], test)
        ):
            total += self.times[test]
            if taken and total > seconds:
                break
            taken.append(test)
        return taken, len(met) - len(taken)


def file_of(test: str) -> str:
    return test.partition("::")[0]


def run_pytest(tree: Path, arguments: Sequence[str], limit: float | None, **more: str) -> int | None:
    """The exit status of pytest in a tree; None when it took longer than `limit`. Shown where there is none."""
    search = os.pathsep.join([str(tree / "src"), str(tree)])
    plugins = [word for plugin in PLUGINS for word in ("-p", plugin)]
    out = None if limit is None else subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", *plugins, *NO_LIMIT, *arguments],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1", **more},
        stdout=out,
        stderr=out,
        start_new_session=True,
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            if hasattr(os, "killpg"):  # with all that it has started
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()


def measured(under: Path, kept: Path) -> Coverage:
    """What each test executes: as it is kept in a file, or by running all of them."""
    digest = hashlib.sha256()
    for path in sorted([*under.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]):
        digest.update(path.read_bytes())
    state, times = kept.with_name(f"{kept.name}.state"), kept.with_name(f"{kept.name}.times")
    if not (state.is_file() and state.read_text() == digest.hexdigest()):
        kept.parent.mkdir(parents=True, exist_ok=True)
        for old in (kept, times, state):
            old.unlink(missing_ok=True)
        options = [f"--cov={under}", "--cov-context=test", "--cov-report=", "--cov-fail-under=0"]
        run_pytest(
            ROOT, [*options, "--ignore=tests/ui"], None, COVERAGE_FILE=str(kept), **{TIMES: str(times)}
        )
        state.write_text(digest.hexdigest())
    data = CoverageData(str(kept))
    data.read()
    found = Coverage()
    failed: set[str] = set()
    for name in data.measured_files():
        by_line = data.contexts_by_lineno(name)
        found.lines[Path(name)] = {n: {test.rpartition("|")[0] for test in by_line[n]} for n in by_line}
    for line in times.read_text().splitlines():
        test, seconds = json.loads(line)
        found.times[test] = found.times.get(test, 0.0) + (seconds or 0.0)
        failed.update({test} if seconds is None else ())
    for test in failed:
        del found.times[test]
    return found


def try_out(mutation: Mutation, coverage: Coverage, trees: SimpleQueue[Path], seconds: float) -> Outcome:
    """Make a change in a copy of the tree that is free, and run the tests that execute it."""
    tests, left_out = coverage.tests_for(mutation, seconds)
    name, before, after = mutation.path.relative_to(ROOT), mutation.path.read_bytes(), mutation.applied()
    status: int | None = SURVIVED
    if tests:
        tree = trees.get()
        try:
            (tree / name).write_bytes(after)
            (tree / "chosen.json").write_text(json.dumps(tests))
            limit = 3 * sum(coverage.times[test] for test in tests) + PATIENCE
            arguments = ["-x", *dict.fromkeys(map(file_of, tests))]
            status = run_pytest(tree, arguments, limit, **{CHOSEN: str(tree / "chosen.json")})
        finally:
            (tree / name).write_bytes(before)
            trees.put(tree)
    if status not in (SURVIVED, FAILED, *BROKEN, None):
        raise SystemExit(f"pytest ended with status {status} for {name}:{mutation.line}; run it by hand")
    how = "no test" if not tests else {SURVIVED: "passes", None: "hangs"}.get(status, "fails")
    lines = [text.splitlines()[mutation.line - 1].decode().strip() for text in (before, after)]
    caught = status != SURVIVED
    return Outcome(name.as_posix(), mutation.line, lines[0], lines[1], caught, how, len(tests), left_out)


def copied_trees(count: int, folder: Path) -> SimpleQueue[Path]:
    """So many copies of the tree, without what git ignores."""
    command = ["git", "ls-files", "-zco", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    trees: SimpleQueue[Path] = SimpleQueue()
    for number in range(count):
        tree = folder / str(number)
        for name in names:
            if name and (ROOT / name).exists():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
        trees.put(tree)
    return trees


def outcomes(
    mutations: Sequence[Mutation], coverage: Coverage, jobs: int, seconds: float
) -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        trees = copied_trees(jobs, Path(folder))
        yield from pool.map(lambda mutation: try_out(mutation, coverage, trees, seconds), mutations)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--number", type=int, default=64, help="of mutations")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument(
        "--under", type=Path, default=ROOT / "src" / "napari_medsam", help="the package to change"
    )
    parser.add_argument(
        "--coverage", type=Path, default=ROOT / "out" / "mutate.coverage", help="is kept here"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of tests for one mutation, at most")
    parser.add_argument("--jobs", type=int, default=1, help="mutations tried at once")
    parser.add_argument("--json", type=Path, help="file for the outcomes")
    parser.add_argument("--at-least", type=int, default=0, help="so many must be caught")
    options = parser.parse_args()
    under = options.under.resolve()
    files = [
        file for file in sorted(under.rglob("*.py")) if not LEFT_OUT & set(file.relative_to(under).parts)
    ]
    mutations = choose(files, options.number, random.Random(options.seed))
    found = []
    for one in outcomes(
        mutations, measured(under, options.coverage.resolve()), options.jobs, options.seconds
    ):
        found.append(one)
        verdict = "caught by" if one.caught else "SURVIVED"
        more = f", {one.left_out} had no time" if one.left_out else ""
        print(
            f"{one.file}:{one.line}  {one.before}  ->  {one.after}  {verdict} {one.tests} tests ({one.how}{more})"
        )
        sys.stdout.flush()
    caught = sum(one.caught for one in found)
    print(f"{caught} of {len(found)} caught (seed {options.seed})")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1))
    return int(caught < options.at_least)


if __name__ == "__main__":
    sys.exit(main())
