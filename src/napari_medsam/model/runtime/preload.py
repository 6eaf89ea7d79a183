"""Bring torch into the process without holding up a window that is open meanwhile.

`import torch` loads hundreds of megabytes of shared libraries with Python's lock held, so that no other
thread, the one that draws included, runs for a quarter of a second and more. Loaded beforehand by a foreign
call, which gives the lock up, the libraries are already there when the import asks for them.
"""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path

# In the order in which torch itself loads them; the first one globally, as torch does.
_GLOBAL = "libtorch_global_deps"
_LIBRARIES = ("libtorch_cpu", "libtorch_cuda", "libtorch")


def preload_torch() -> bool:
    """Load torch's libraries with Python's lock released; True when that was done.

    Only saves others from waiting: where it cannot be done (Windows, where torch releases the lock by
    itself, or an unusual build), importing torch works all the same. Does nothing once torch is imported.
    """
    if "torch" in sys.modules or sys.platform == "win32":
        return False
    folder = _library_folder()
    if folder is None:
        return False
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    dlopen = ctypes.CDLL(None).dlopen  # called as a foreign function, unlike ctypes.CDLL(path) itself
    dlopen.argtypes, dlopen.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    for name in (_GLOBAL, *_LIBRARIES):
        path = folder / (name + suffix)
        mode = os.RTLD_NOW | (os.RTLD_GLOBAL if name == _GLOBAL else os.RTLD_LOCAL)
        if path.is_file() and not dlopen(os.fsencode(path), mode):
            return False
    return True


def _library_folder() -> Path | None:
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "lib"
    return folder if folder.is_dir() else None
