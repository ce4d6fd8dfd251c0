"""What only costs are asked of: floats as if quantized, models without their weights, lists of products."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from systolic import _check
from systolic._files import path_text
from systolic.frontend.from_onnx import load_onnx, model_of
from systolic.frontend.loading import is_program
from systolic.frontend.operators import UnsupportedOperator
from systolic.frontend.qdq import to_integers
from systolic.frontend.qdq.as_if import AS_IF, has_float_products, quantize_as_if
from systolic.frontend.read import graph_of
from systolic.isa import Program
from systolic.layers import ArrayLayer, Dense, Layer, QLinearConv
from systolic.layers.host.delegated import FloatProduct
from systolic.model import Model, Node
from systolic.quant import QuantParams
from systolic.workloads import Workload, read_workload
from systolic.workloads.files import SUFFIXES

PRODUCTS = "costed as if quantized: a list of products"
"""Note of costs of products without a network."""


def read_model(path: str | os.PathLike[str]) -> Model | Workload:
    """Read what is only to be costed, by its file's suffix.

    Parameters
    ----------
    path : path
        An .onnx file, by ``load_onnx(..., costs_only=True)``; a .csv topology of SCALE-Sim, or .yaml, .yml or
        .json with products (:func:`~systolic.workloads.read_workload`); any other by ``Model.load``.
    """
    text = path_text(path)
    suffix = Path(text).suffix.lower()
    if suffix in SUFFIXES:
        return read_workload(text)
    return load_onnx(text, costs_only=True) if suffix == ".onnx" else Model.load(text)


def costed(work: Any, *, floats: bool = False) -> Any:
    """Return what costs are asked of as a Model or a Workload; what stands for neither as it is.

    Parameters
    ----------
    work : path, Model, Workload, or Gemms in a list or by name
        Of a path, what :func:`read_model` reads, or the Program that it holds.
    floats : bool
        Whether a model whose products are all of floats stays one. Else it is returned as if quantized, if it
        can be.
    """
    if isinstance(work, str | os.PathLike):
        work = Program.load(work) if is_program(path_text(work)) else read_model(work)
    elif isinstance(work, Mapping) or _check.is_listed(work):
        work = Workload("products", work)
    if isinstance(work, Model) and not floats and _is_float(work):
        return _as_if(work)
    return work


def _is_float(model: Model) -> bool:
    layers = [node.layer for node in model.nodes]
    some = any(isinstance(layer, FloatProduct) for layer in layers)
    return some and not any(isinstance(layer, ArrayLayer) for layer in layers)


def _as_if(model: Model) -> Model:
    """Return a model of floats as if quantized; as it is if no file could hold it."""
    from systolic.frontend.to_onnx import _proto

    try:
        proto = _proto(model)
        del proto.metadata_props[:]
        graph = graph_of(proto, model.name)
        if not has_float_products(graph) or not quantize_as_if(graph):
            return model
        to_integers(graph)
        found = model_of(graph, model.name)
    except (ImportError, UnsupportedOperator):
        return model
    found.note = AS_IF
    return found


def as_model(workload: Workload, batch: int = 1) -> Model:
    """Return a model of a workload's products, which read their rows from the host and return their results.

    A product of several groups is a convolution of one pixel. Weights are zeros. `batch` is a factor of the
    rows.

    Examples
    --------
    >>> from systolic import Gemm
    >>> from systolic.workloads import Workload
    >>> from systolic.frontend.costing import as_model
    >>> block = Workload("block", [("fc", Gemm(16, 64, 64), 2), ("heads", Gemm(16, 8, 16, groups=4))])
    >>> as_model(block).outputs
    ('fc', 'fc (2)', 'heads')
    """
    nodes: list[Node] = []
    products: dict[tuple[int, int, int], Layer] = {}  # equal ones share their zeros
    inputs: dict[str, Any] = {}
    names: set[str] = set()
    for layer, (gemm, count) in zip(workload.layers, workload.products(batch), strict=True):
        if gemm.mapping != "im2col":
            raise ValueError(
                f"layer {layer.name!r} is laid out as {gemm.mapping!r}, which is of the array alone: pass a "
                "Gemm without taps and pack"
            )
        for number in range(count):
            stem = layer.name if not number else f"{layer.name} ({number + 1})"
            name, again = stem, 1
            while name in names:
                again += 1
                name = f"{stem} #{again}"
            names.add(name)
            sizes = gemm.k, gemm.n, gemm.groups
            if sizes not in products:
                products[sizes] = _product(*sizes)
            shape = (gemm.m, gemm.k) if gemm.groups == 1 else (1, gemm.groups * gemm.k, gemm.m)
            inputs[f"{name}.x"] = shape, "int8"
            nodes.append(Node(products[sizes], (f"{name}.x",), name, name))
    outputs = [node.output for node in nodes]
    model = Model(nodes, inputs=inputs, outputs=outputs, name=workload.name)
    model.note = PRODUCTS
    return model


def _product(k: int, n: int, groups: int) -> Layer:
    """Return a product with weights of zeros, (K, N) for each group."""
    one = QuantParams(1.0)
    if groups == 1:
        return Dense(np.zeros((k, n), np.int8), x=one, w=one, y=one)
    return QLinearConv(np.zeros((groups * n, k, 1), np.int8), x=one, w=one, y=one, groups=groups)
