"""``estimate`` and ``summary``: what a product, a model or a program costs, without data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from systolic import _check
from systolic.compiler import NoProgram, Programs
from systolic.config import ArrayConfig, MachineConfig, given_machine
from systolic.energy import DEFAULT, EnergyTable
from systolic.engine.program_runs import warn_of
from systolic.frontend import as_model, costed
from systolic.gemm import Gemm
from systolic.isa import Program
from systolic.layers import ArrayLayer
from systolic.machine import time_program
from systolic.model import Model, Node, Summary
from systolic.model.inference import Tensor, products_of, stats_of
from systolic.model.mappings import MappingArgument, laid_out_on, mappings_of
from systolic.presets import TPU_V1
from systolic.stats import COUNTS, Stats
from systolic.tiling import estimate_gemm
from systolic.tiling.mappings import MAPPINGS, check_mapping, laid_out
from systolic.workloads import Workload

Products = Mapping[str, Gemm] | Sequence[Gemm]

ProductsOf = Callable[..., tuple[Any, ...] | None]
"""Returns the products of a node, None if a shape is unknown: (node, shape and type of each tensor)."""


def estimate(
    work: Gemm | Model | Program | Workload | Products | str | os.PathLike[str],
    *,
    machine: MachineConfig | ArrayConfig | None = None,
    array: ArrayConfig | None = None,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    mapping: MappingArgument = None,
) -> Stats:
    """Return what a product, a model or a program costs, without data.

    Parameters
    ----------
    work : Gemm, Model, Program, Workload, Gemms in a list or by name, or path
        Products take the array alone, in closed form, and so do models on a machine without memories. With
        memories a model is compiled; a program is timed, and its cycles are counted by cause. A path is an
        .onnx file, whose weights may be missing, a topology of SCALE-Sim (.csv), products in .yaml or .json,
        or what ``Model.save`` or ``Program.save`` wrote. A model whose products are all of floats is costed
        as if quantized.
    machine : MachineConfig or ArrayConfig, optional
        Default the TPU v1 preset.
    array : ArrayConfig, optional
        Instead of `machine`: an array without memories.
    batch : int
        Size of the first axis where a model takes any; of products, a factor of their rows.
    shapes : mapping of str to tuple of int, optional
        Whole shapes of a model's inputs by name; needed where other sizes are symbolic.
    mapping : {"im2col", "taps", "pack", "best"} or mapping of str to them, optional
        How a model's convolutions run, as for :func:`run`; "pack" and "best" also for the groups of a Gemm.

    Returns
    -------
    Stats
        Every field equal to that of a run.

    Raises
    ------
    ValueError
        If a dimension is unbound, or the size of a product depends on runtime values; the message names
        the node. If a program does not fit the machine; the message names the instruction.

    Examples
    --------
    >>> from systolic import Gemm, estimate
    >>> estimate(Gemm(1, 2048, 1000)).cycles
    8703
    >>> estimate(Gemm(196, 9, 1, groups=16), mapping="pack").cycles
    962
    """
    machine = given_machine(machine, array, TPU_V1)
    config = machine.array
    work = costed(work)
    if shapes is not None and isinstance(work, Gemm | Workload):
        raise ValueError("shapes are of a model's inputs; products have their sizes: leave shapes out")
    if isinstance(work, Workload):
        if machine.memory is None:
            found = work.products(batch)
            if mapping is not None:
                found = [(_mapped(gemm, mapping, config), count) for gemm, count in found]
            return _of_products(found, config)
        work, batch = as_model(work, batch), 1
    if isinstance(work, Gemm):
        work = replace(work, m=work.m * _check.integer(batch, "batch", minimum=1))
        if mapping is not None:
            check_mapping(mapping, work.groups)
            work = _mapped(work, mapping, config)
        return estimate_gemm(work, config)
    if isinstance(work, Program):
        if mapping is not None:
            raise ValueError("the mappings of a program were chosen when it was compiled; pass its Model")
        if batch != 1 or shapes is not None:
            raise ValueError("the shapes of a program were chosen when it was compiled; pass its Model")
        return time_program(work, machine).stats
    if not isinstance(work, Model):
        raise TypeError(
            "estimate takes a Gemm, several in a list or by name, a Workload, a Model, a Program or the path "
            f"of one, not {_check.kind(work)}"
        )
    if machine.memory is not None:
        try:
            return Programs(work, batch=batch, mapping=mapping, shapes=shapes).stats(machine)
        except NoProgram as error:
            warn_of(error, work, stacklevel=3)
    of = laid_out_on(config, mappings_of(work.nodes, mapping))
    known = work.infer_shapes(work.input_shapes(batch, shapes=shapes))
    _by_node(work, known, of)  # raises if the size of a product is not known
    return total_stats(work, known, config, of)


def _of_products(products: Iterable[tuple[Gemm, int]], config: ArrayConfig) -> Stats:
    """Return the sum of products, each of which runs a number of times."""
    total = dict.fromkeys(COUNTS, 0)
    for gemm, count in products:
        for name, value in estimate_gemm(gemm, config).to_dict().items():
            total[name] += count * value
    return Stats(**total)


def _mapped(gemm: Gemm, mapping: MappingArgument, config: ArrayConfig) -> Gemm:
    """Return a product in the layout of a mapping, which is about its groups."""
    name = _check.choice(mapping, "mapping", MAPPINGS)
    if name == "taps":
        raise ValueError(
            "mapping 'taps' is of a convolution's kernel, which a Gemm does not have; pass a Model, or "
            "Gemm(..., taps=9) for a kernel of 9 taps"
        )
    return laid_out(gemm, gemm.taps, name, config)


def known_products(
    model: Model, batch: int, shapes: Mapping[str, Sequence[int]] | None = None, of: ProductsOf = products_of
) -> list[Any]:
    """Return the products of a model; ValueError, naming the node, if one depends on runtime values.

    `of` returns what is listed for a node.
    """
    return [gemm for _, gemms in products_by_node(model, batch, shapes, of) for gemm in gemms]


def products_by_node(
    model: Model, batch: int, shapes: Mapping[str, Sequence[int]] | None = None, of: ProductsOf = products_of
) -> list[tuple[Node, tuple[Any, ...]]]:
    """Return the nodes that use the array, each with its products; see `known_products`."""
    return _by_node(model, model.infer_shapes(model.input_shapes(batch, shapes=shapes)), of)


def _by_node(
    model: Model, known: Mapping[str, Tensor], of: ProductsOf
) -> list[tuple[Node, tuple[Any, ...]]]:
    gemms = products(model, known, of)
    writers = {tensor: node for node in model.nodes for tensor in node.outputs}
    found = []
    for node in model.nodes:
        if node.output not in gemms:
            continue
        of_node = gemms[node.output]
        if of_node is None:
            source = node
            while unknown := [tensor for tensor in source.inputs if known[tensor][0] is None]:
                source = writers[unknown[0]]
            raise ValueError(
                f"cannot estimate node {node.name!r} without data: the output shape of {source.name!r} "
                f"({type(source.layer).__name__}) depends on runtime values; use run()"
            )
        found.append((node, of_node))
    return found


def summary(
    model: Model | Workload | Products | str | os.PathLike[str],
    *,
    machine: MachineConfig | ArrayConfig | None = None,
    array: ArrayConfig | None = None,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    mapping: MappingArgument = None,
    energy: EnergyTable | str | None = DEFAULT,
) -> Summary:
    """Return shapes, MACs, estimated cycles, parameters and bytes of every node, without data.

    Parameters
    ----------
    model : Model, Workload, Gemms in a list or by name, or path
        As for :func:`estimate`. The ``note`` of the result says if it is costed as if quantized, or without
        values.
    machine : MachineConfig or ArrayConfig, optional
        Machine to run on; default the TPU v1 preset.
    array : ArrayConfig, optional
        Instead of `machine`: an array without memories.
    batch : int
        Size of the first axis where the model takes any.
    shapes : mapping of str to tuple of int, optional
        Whole shapes of inputs by name, where other sizes are symbolic.
    mapping : {"im2col", "taps", "pack", "best"} or mapping of str to them, optional
        How convolutions run, as for :func:`run` on the array alone.
    energy : EnergyTable or str, optional
        For ``Summary.energy``, as of :func:`run`. None leaves energy out.

    Returns
    -------
    Summary
        Cycles are those of a run on the array alone, without the machine's memories. Values that depend on
        runtime data or an unbound dimension are None, shown as ``?`` in the table and left out of the totals.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a layer does not accept its inputs.

    See Also
    --------
    estimate : The total alone.

    Examples
    --------
    >>> import numpy as np
    >>> import systolic
    >>> from systolic import Model, QuantParams
    >>> from systolic.layers import Dense, Relu
    >>> q = QuantParams(0.5)
    >>> dense = Dense(np.ones((4, 3), np.int8), x=q, w=q, y=q)
    >>> model = Model([dense, Relu()], inputs={"x": ((None, 4), "int8")})
    >>> found = systolic.summary(model, batch=8)
    >>> [(row["node"], row["on"], row["reads"], row["writes"], row["macs"]) for row in found.rows]
    [('t0', 'array', '8x4', '8x3', 96), ('t1', 'host', '8x3', '8x3', None)]
    """
    machine = given_machine(machine, array, TPU_V1)
    model = costed(model)
    if isinstance(model, Workload):
        model, batch = as_model(model, batch), 1
    if not isinstance(model, Model):
        raise TypeError(
            f"model must be a Model, not {type(model).__name__}; "
            "load_onnx and Model.load read one from a file"
        )
    return model.summary(machine=machine, batch=batch, shapes=shapes, mapping=mapping, energy=energy)


def products(
    model: Model, known: Mapping[str, Tensor], of: ProductsOf = products_of
) -> dict[str, tuple[Any, ...] | None]:
    """Return the products of the array layers by their node's output; None if a shape is unknown."""
    return {node.output: of(node, known) for node in model.nodes if isinstance(node.layer, ArrayLayer)}


def total_stats(
    model: Model, known: Mapping[str, Tensor], config: ArrayConfig, of: ProductsOf = products_of
) -> Stats:
    """Return the sum of the estimates of those products of a model that are known."""
    return sum((stats for node in model.nodes for stats in stats_of(node, known, config, of) or ()), Stats())
