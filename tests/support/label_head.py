"""A ball with the classes of a label map: scalp, skull, CSF, cortex, white matter, ventricle."""

import numpy as np
from numpy.typing import NDArray

from tests.support.ball_head import CENTRE, SIZE, ball_maps
from trainer.simulate.labels import classes_of

#: radius in mm within which a label of the map lies, from outside to inside
SHELLS = ((29.0, 511), (27.0, 507), (25.0, 515), (22.0, 24), (20.0, 3), (17.0, 2), (5.0, 4))


def ball_labels() -> NDArray[np.int32]:
    """Return the label map of the ball, (z, y, x)."""
    z, y, x = np.indices((SIZE, SIZE, SIZE)).astype(float) - CENTRE[:, None, None, None]
    radius = np.sqrt(z**2 + y**2 + x**2)
    labels = np.zeros(radius.shape, np.int32)
    for outer, label in SHELLS:
        labels[radius < outer] = label
    return labels


def label_maps() -> dict[str, NDArray[np.generic]]:
    """Return maps of the ball as `map_labels` does."""
    classes, head = classes_of(ball_labels())
    mni = {name: array for name, array in ball_maps().items() if name.startswith("mni_")}
    return {"classes": classes, "head": head, "origin_mm": np.zeros(3), **mni}
