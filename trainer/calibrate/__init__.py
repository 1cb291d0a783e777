"""Calibration of a bundle's uncertainty on heads held out of its training.

series      thick-slice series of one head, with the truth at any plane
residuals   such series through the node's own steps, and how far they are from the truth
scale_head  the residual-scale head, taught on them
conformal   widths of intervals, with one person as one observation
figures     coverage, width, order and sparsification
report      JSON and Markdown
bundle      the new bundle
"""
