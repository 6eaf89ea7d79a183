"""The Retrain panel."""
