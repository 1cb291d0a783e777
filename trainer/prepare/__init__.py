"""From folders of other people's images to one prepared data set (format: `trainer.dataset`).

`layouts` finds subjects, `nifti`, `dicom` and `archive` read one, `split` gives everyone a role,
`run` does it all with resume. What cannot be used is refused with the file and the reason; nothing
is guessed, and only what is said in a subject's notes is done to its voxels.
"""
