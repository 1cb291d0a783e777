"""Room of reading DICOM instances: codecs, structural scan, headers, pixels."""
