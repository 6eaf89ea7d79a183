"""The layers of one image at work, tied to its document: napari's layer models, no Qt."""
