"""DICOM to volumes and label maps to DICOM: pure, no network, no torch."""
