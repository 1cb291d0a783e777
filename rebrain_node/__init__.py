"""A clinical DICOM node that stores a synthetic T1-like MR series beside a thick-slice head CT."""

__version__ = "0.1.0"
