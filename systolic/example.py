"""The bundled network: handwritten digits, quantized to int8."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from systolic.model import Model

DATA = Path(__file__).parent / "data"
"""The folder with the network as ONNX and as a saved model, and with the images."""


class Example(NamedTuple):
    """A model with images and labels to run it on.

    Attributes
    ----------
    model : Model
    images : ndarray of float32, (360, 1, 8, 8)
        Pixels 0..16.
    labels : ndarray of uint8, (360,)
        Digits 0..9.
    """

    model: Model
    images: np.ndarray
    labels: np.ndarray


def load_example() -> Example:
    """Return the bundled network with its test images and labels.

    A small residual convolutional network for scikit-learn's handwritten digits, trained and
    quantized by ``examples/train_digits.py``; the 360 images were used for neither step. The images are
    from the UCI digits data set (E. Alpaydin, C. Kaynak, 1998), as scikit-learn ships it.

    Examples
    --------
    >>> import systolic
    >>> systolic.load_example().images.shape
    (360, 1, 8, 8)
    """
    model = Model.load(DATA / "digits.zip")
    with np.load(DATA / "digits_test.npz") as data:
        return Example(model, data["images"].astype(np.float32), data["labels"])
