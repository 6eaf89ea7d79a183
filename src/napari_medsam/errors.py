"""The errors a user can meet.

Every message names the file, layer or model and the next step. None derives from RuntimeError: napari's
thread workers swallow those, and torch raises them for its own reasons; they are translated at the model
boundary.
"""

from __future__ import annotations


class MedSAMError(Exception):
    """Base of all errors raised on purpose by this package."""


class ImageError(MedSAMError):
    """An image, layer or file cannot be read as a plane."""


class PromptError(MedSAMError):
    """A prompt cannot be used: zero area, outside the plane, not finite."""


class ModelError(MedSAMError):
    """A model is unknown, cannot be built or failed while running."""


class CheckpointError(ModelError):
    """A checkpoint file is missing, truncated, of the wrong hash or of an unknown layout."""


class DownloadError(ModelError):
    """A checkpoint could not be fetched."""


class CaseError(MedSAMError):
    """A case or a dataset on disk is missing, incomplete or inconsistent."""


class Cancelled(MedSAMError):
    """The user cancelled the work before it finished."""


def message_of(error: BaseException, name: str) -> str:
    """What to tell a user about any error met with the image or model `name`."""
    return str(error) if isinstance(error, MedSAMError) else f"{name}: {type(error).__name__}: {error}"
