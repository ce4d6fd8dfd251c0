"""Vectors of a layer: of one product, or a folder for each of its products."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from systolic._files import check_folder, path_text, write_folder
from systolic._show.progress import shown
from systolic._text import printable_errors
from systolic._version import __version__
from systolic.config import ArrayConfig, MachineConfig, as_array_config
from systolic.engine.layer_inputs import layer_inputs
from systolic.engine.products import ProgressArgument
from systolic.frontend import load_model
from systolic.gemm import Gemm
from systolic.layers import ArrayLayer
from systolic.lowered import Lowered
from systolic.machine import run_wavefront
from systolic.model import Model
from systolic.vectors.manifest import SCHEMA
from systolic.vectors.manifest import save as save_manifest
from systolic.vectors.product import check_size, mapped, write_product


@printable_errors
def write_layer_vectors(
    model: Model | str | os.PathLike[str],
    layer: str,
    x: np.ndarray | Mapping[str, np.ndarray],
    out: str | os.PathLike[str],
    *,
    array: ArrayConfig | MachineConfig | None = None,
    mapping: str | None = None,
    progress: ProgressArgument = None,
) -> dict[str, Any]:
    """Write the port values and results of a layer of a model, as :func:`systolic.write_vectors` does.

    Parameters
    ----------
    model : Model or path
        A path is an .onnx file, or what ``Model.save`` wrote.
    layer : str
        The name of a node that runs on the array.
    x : ndarray or mapping of str to ndarray
        The model's input, or one for each input by name. The layers before `layer` are computed.
    out : path
        A folder to make; it is complete or absent. Of a layer of several products, such as a recurrent one,
        it holds a folder for each: ``product_000`` and so on.
    array, mapping, progress
        As for :func:`systolic.write_vectors`.

    Returns
    -------
    dict
        The manifest; of a layer of several products that of the outer folder.

    Raises
    ------
    TypeError, ValueError
        As :func:`systolic.run`; if no layer of this name runs on the array; if its product is empty.
    OSError
        As :func:`systolic.write_vectors`.

    Examples
    --------
    >>> import tempfile
    >>> import systolic
    >>> from systolic.vectors import write_layer_vectors
    >>> example = systolic.load_example()
    >>> out = tempfile.mkdtemp() + "/stem"
    >>> array = systolic.ArrayConfig(8, 8)
    >>> manifest = write_layer_vectors(example.model, "stem_quant", example.images[:1], out, array=array)
    >>> manifest["layer"]["operator"], manifest["output"]["shape"], manifest["files"]["y.mem"]["lines"]
    ('QLinearConv', [1, 16, 8, 8], 64)
    """
    config = ArrayConfig() if array is None else as_array_config(array)
    check_folder(out)
    if isinstance(model, str | os.PathLike):
        model = load_model(os.fspath(model))
    node, inputs = layer_inputs(model, layer, x, array=config)
    assert isinstance(node.layer, ArrayLayer)
    names = {"name": node.name, "output": node.output}
    return write_layer(node.layer, inputs, out, config, mapping, progress, **names)


def write_layer(
    layer: ArrayLayer, inputs: Sequence[np.ndarray], out: str | os.PathLike[str], config: ArrayConfig,
    mapping: str | None = None, progress: ProgressArgument = None, **names: str,
) -> dict[str, Any]:  # fmt: skip
    """Write a layer's vectors; `names` are added to what the manifest says of the layer."""
    check_folder(out)
    works = list(_products(layer, inputs, mapping, config))
    check_size(works, config, Path(path_text(out)))
    about: dict[str, Any] = {"operator": layer.kind, **names}
    one = isinstance(layer.products(*(value.shape for value in inputs)), Gemm)
    manifest: dict[str, Any] = {}

    def write(folder: Path) -> None:
        if one:
            with shown(progress, "cycles") as report:
                manifest.update(write_product(folder, works[0], config, report, layer=about))
            return
        width = max(3, len(str(len(works) - 1)))
        folders = [f"product_{i:0{width}}" for i in range(len(works))]
        with shown(progress, "products") as report:
            for i, (name, lowered) in enumerate(zip(folders, works, strict=True)):
                (folder / name).mkdir()
                write_product(folder / name, lowered, config, layer=about | {"product": i})
                if report is not None:
                    report(i + 1, len(works))
        manifest.update(schema=SCHEMA, systolic=__version__, layer=about, products=folders)
        save_manifest(manifest, folder)

    write_folder(out, write)
    return manifest


def _products(
    layer: ArrayLayer, inputs: Sequence[np.ndarray], mapping: str | None, config: ArrayConfig
) -> Iterator[Lowered]:
    """Yield the work of each product of a layer; a product may depend on the outputs of those before."""
    steps, output = layer.steps(*inputs), None
    while True:
        try:
            lowered = steps.send(output)
        except StopIteration:
            return
        yield mapped(lowered, mapping, config, f"{layer.kind} is none")
        output = run_wavefront(lowered, config).output
