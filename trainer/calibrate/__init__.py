"""Calibration of a bundle's uncertainty on subjects held out of its training."""
