"""Nouns of the domain: frozen dataclasses over numpy; no DICOM, no torch."""
