"""What only Qt needs: the way back to the main thread, repaints, napari's activity."""
