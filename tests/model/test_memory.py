"""Freed memory stays with the process: fewer pages are made anew."""

from __future__ import annotations

import platform
import subprocess
import sys

from napari_medsam.model.runtime.memory import keep_freed_memory

PROBE = """
import resource, sys, threading
import numpy as np
from napari_medsam.model.runtime.memory import keep_freed_memory

def work():
    for _ in range(200):
        [np.ones(2**20) for _ in range(3)]  # 8 MB each, all there at once

if sys.argv[1] == "kept":
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):  # decodes run in threads
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROBE, how], check=True, capture_output=True, text=True)
    return int(done.stdout)


def test_tensors_of_some_megabytes_reuse_their_pages() -> None:
    if platform.libc_ver()[0] == "glibc":
        assert faults("kept") < 0.2 * faults("not")
    else:
        keep_freed_memory()  # does nothing, and says nothing
