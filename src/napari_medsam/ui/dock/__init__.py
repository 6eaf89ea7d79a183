"""The MedSAM dock."""
