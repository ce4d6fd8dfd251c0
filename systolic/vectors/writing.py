"""``write_vectors``: a product, a convolution or a layer as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from systolic import _check
from systolic._files import check_folder, path_text, write_folder
from systolic._show.progress import shown
from systolic.config import ArrayConfig, MachineConfig, as_array_config
from systolic.engine.products import ProgressArgument
from systolic.formats import OPERANDS
from systolic.layers import ArrayLayer
from systolic.layers.conv import lower_conv2d
from systolic.lowered import lower_matmul
from systolic.vectors.layers import write_layer
from systolic.vectors.product import check_size, mapped, write_product

_OF_IMAGES: dict[str, Any] = {
    "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "layout": "NCHW", "x_zero_point": 0,
}  # fmt: skip
"""Arguments of a convolution and their defaults."""


def write_vectors(
    x: Any,
    w: Any,
    out: str | os.PathLike[str],
    *,
    array: ArrayConfig | MachineConfig | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Any = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    layout: str = "NCHW",
    x_zero_point: int = 0,
    mapping: str | None = None,
    progress: ProgressArgument = None,
) -> dict[str, Any]:
    """Write the values that a product puts on every port of the array, and its results.

    Parameters
    ----------
    x : array_like of int8, uint8 or another type of ``ArrayConfig``
        A matrix (M, K); images (batch, ic, ih, iw); or the input of the layer `w`, a list of them if it reads
        several.
    w : array_like of a type that goes with x's, or ArrayLayer
        A matrix (K, N); filters (oc, ic // groups, kh, kw); or a layer, such as
        :class:`~systolic.layers.QLinearConv`: then the folder holds its requantized output, too.
    out : path
        A folder to make; it is complete or absent.
    array : ArrayConfig or MachineConfig, optional
        Sizes; default 256 x 256.
    stride, padding, dilation, groups, layout, x_zero_point
        Of a convolution of arrays, as for :func:`systolic.conv2d`.
    mapping : {"im2col", "taps", "pack", "best"}, optional
        How a convolution is laid out, as for :func:`systolic.conv2d`.
    progress : bool or callable, optional
        True shows a bar; a callable gets (done, total) cycles.

    Returns
    -------
    dict
        The manifest, as ``manifest.json`` holds it: ``docs/vectors.md`` lists its fields.

    Raises
    ------
    TypeError, ValueError
        As :func:`systolic.matmul`, :func:`systolic.conv2d` or the layer; or if the product is empty.
    FileExistsError
        If `out` exists.
    FileNotFoundError, PermissionError
        If `out` cannot be made where it is to be.
    OSError
        If the files are larger than what is free on the disk.

    Notes
    -----
    All but a fault of the disk is raised before the first file is written.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from pathlib import Path
    >>> from systolic import ArrayConfig, write_vectors
    >>> folder = Path(tempfile.mkdtemp())
    >>> x, w = np.int8([[1, 2], [3, 4], [-5, 6]]), np.int8([[7, -8, 9], [10, 11, -12]])
    >>> write_vectors(x, w, folder / "product", array=ArrayConfig(2, 3))["cycles"]
    8
    >>> print((folder / "product" / "north_weight.mem").read_text().splitlines()[0])
    00000a

    A convolution, and a layer with its requantized output:

    >>> images = np.arange(16, dtype=np.int8).reshape(1, 1, 4, 4)
    >>> filters = np.ones((2, 1, 3, 3), dtype=np.int8)
    >>> write_vectors(images, filters, folder / "conv", array=ArrayConfig(4, 4), padding=1)["gemm"]
    {'m': 16, 'k': 9, 'n': 2, 'groups': 1}
    >>> from systolic import QuantParams
    >>> from systolic.layers import Dense
    >>> layer = Dense(w, x=QuantParams(0.5), w=QuantParams(0.25), y=QuantParams(2.0, 3))
    >>> manifest = write_vectors(x, layer, folder / "layer", array=ArrayConfig(2, 3))
    >>> manifest["epilogue"]["rounding"], manifest["epilogue"]["zero_point"]
    ('half_even', 3)
    >>> print(*(folder / "layer" / "y.mem").read_text().split())
    020405 020407 fc0a05
    """
    config = ArrayConfig() if array is None else as_array_config(array)
    given = {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "layout": layout,
        "x_zero_point": x_zero_point,
    }  # fmt: skip
    if isinstance(w, ArrayLayer):
        _only_of_images(given, "the layer has its own")
        inputs = x if isinstance(x, list | tuple) else [x]
        inputs = [_check.as_array(value, f"input {i}") for i, value in enumerate(inputs)]
        return write_layer(w, inputs, out, config, mapping, progress)
    x, w = _check.as_array(x, "x"), _check.as_array(w, "w")
    if x.ndim == w.ndim == 4:
        lowered = lower_conv2d(
            x, w, stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout,
            pad_value=x_zero_point,
        )  # fmt: skip
    else:
        if {x.ndim, w.ndim} != {2}:
            raise ValueError(
                "x and w must be matrices (M, K) and (K, N), or images (batch, ic, ih, iw) and filters "
                f"(oc, ic // groups, kh, kw), not {_check.shape(x.shape)} and {_check.shape(w.shape)}"
            )
        _only_of_images(given, f"x {_check.shape(x.shape)} and w {_check.shape(w.shape)} are matrices")
        lowered = lower_matmul(*_check.matrices(x, w, tuple(OPERANDS)))
    lowered = mapped(lowered, mapping, config, "x and w are matrices")
    check_folder(out)
    check_size([lowered], config, Path(path_text(out)))
    manifest: dict[str, Any] = {}

    def write(folder: Path) -> None:
        with shown(progress, "cycles") as report:
            manifest.update(write_product(folder, lowered, config, report))

    write_folder(out, write)
    return manifest


def _only_of_images(given: dict[str, Any], why: str) -> None:
    """Raise ValueError if an argument of a convolution is given where none is computed from arrays."""
    for name, value in given.items():
        if not _check.same_values(value, _OF_IMAGES[name]):
            raise ValueError(f"{name}= is of a convolution of two arrays, and {why}; leave it out")
