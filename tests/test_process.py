"""A child process is heard, ended with all it has started, and its last words are kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from napari_medsam.process import ChildProcess

CHILDREN = {
    "echo": """
        import sys
        from napari_medsam.process import answers_to_parent
        answers = answers_to_parent()
        print("a library prints")
        for line in sys.stdin.buffer:
            answers.write(line.upper())
            answers.flush()
    """,
    "dies": "import sys; print('first', file=sys.stderr); sys.exit('no memory left\\n\\n')",
    "steps_back": """
        import psutil
        from napari_medsam.process import step_back
        step_back(7)
        print(psutil.Process().nice(), flush=True)
    """,
}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import textwrap

    for name, code in CHILDREN.items():
        (tmp_path / f"child_{name}.py").write_text(textwrap.dedent(code))
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


class Heard:
    """A child and what it has said."""

    def __init__(self, name: str, log: Path | None = None) -> None:
        self.lines: list[bytes] = []
        self.process = ChildProcess(f"child_{name}", log=log)
        self.process.listen("test-child", self._read)

    def _read(self, answers: IO[bytes]) -> None:
        self.lines += answers


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Heard]:
    heard = Heard("echo", tmp_path / "log.txt")
    yield heard
    heard.process.close()


def test_it_answers_and_what_it_prints_is_kept_apart(echo: Heard, tmp_path: Path) -> None:
    echo.process.requests.write(b"hello\n")
    echo.process.requests.close()
    assert echo.process.wait() == 0
    assert echo.lines == [b"HELLO\n"]
    assert (tmp_path / "log.txt").read_text() == "a library prints\n"
    assert echo.process.last_words() == "a library prints"


def test_it_is_ended_while_it_waits_and_ending_it_again_does_nothing(echo: Heard) -> None:
    assert echo.process.status is None
    echo.process.close()
    assert echo.process.status not in (None, 0)
    echo.process.close()
    assert echo.process.last_words() == ""  # the stream is closed


def test_the_last_line_before_it_died_is_told() -> None:
    heard = Heard("dies")
    assert heard.process.wait() == 1
    assert heard.process.last_words() == "no memory left"
    heard.process.close()


def test_it_steps_back() -> None:
    heard = Heard("steps_back")
    heard.process.wait()
    if sys.platform == "win32":
        assert heard.lines != [b"32\n"]  # the class of other processes
    else:
        assert heard.lines == [b"%d\n" % min(os.nice(0) + 7, 19)]
    heard.process.close()
