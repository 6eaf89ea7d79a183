"""The demo that drives the real window."""
