"""``Editor``: edit a graph's operators and keep the writer and readers of each tensor up to date."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from systolic.frontend.check import renamed
from systolic.frontend.operators import Graph, Operator
from systolic.layers.record import MICROSOFT

CAPTURED = -1
"""Stands for the input's place where an operator's subgraph reads a tensor."""


class Reader(NamedTuple):
    """A place at which a tensor is read."""

    op: Operator
    place: int


class Codes(NamedTuple):
    """What a Q or DQ operator says of its codes, where scale and zero point are constants.

    `zero` is None where the operator leaves it out.
    """

    scale: np.ndarray
    zero: np.ndarray | None
    dtype: str
    axis: int

    @property
    def scalar(self) -> bool:
        """Whether one scale and one zero point hold for all."""
        return self.scale.size == 1 and (self.zero is None or self.zero.size == 1)

    @property
    def vector(self) -> bool:
        """Whether scale or zero point has an axis, even one of a single element."""
        return bool(self.scale.ndim or (self.zero is not None and self.zero.ndim))

    @property
    def bits(self) -> int:
        """8 or 16 for the integers that codes are held in; 0 for other types."""
        return {"int8": 8, "uint8": 8, "int16": 16, "uint16": 16}.get(self.dtype, 0)

    def same(self, other: Codes) -> bool:
        """Whether both say the same, each with a zero point and per tensor."""
        return (
            self.scalar
            and other.scalar
            and self.zero is not None
            and other.zero is not None
            and self.zero.dtype == other.zero.dtype
            and self.zero.item() == other.zero.item()
            and self.scale.item() == other.scale.item()
        )


class Chain:
    """Operators in order, like a list, but found, inserted and removed at constant cost."""

    # Gap between numbers: insertions at one place halve it, and renumber all operators once it is used up.
    _GAP = 1 << 256

    def __init__(self, operators: Iterable[Operator]) -> None:
        self._numbers: dict[Operator, int] = {}
        self._after: dict[Operator | None, Operator | None] = {None: None}
        self._before: dict[Operator | None, Operator | None] = {None: None}
        self.put(None, *operators)

    def __iter__(self) -> Iterator[Operator]:
        op = self._after[None]
        while op is not None:
            yield op
            op = self._after[op]

    def __len__(self) -> int:
        return len(self._numbers)

    def index(self, op: Operator) -> int:
        """Return a number that grows along the chain."""
        return self._numbers[op]

    def put(self, at: Operator | None, *operators: Operator, after: bool = False) -> None:
        """Put operators before or after one; before the end if that is None."""
        before = at if after else self._before[at]
        behind = self._after[before]
        for op in operators:
            low = 0 if before is None else self._numbers[before]
            high = low + 2 * self._GAP if behind is None else self._numbers[behind]
            self._numbers[op] = (low + high) // 2
            self._link(before, op)
            before = op
            if self._numbers[op] == low:
                self._link(before, behind)
                self._number()
        self._link(before, behind)

    def remove(self, op: Operator) -> None:
        del self._numbers[op]
        self._link(self._before.pop(op), self._after.pop(op))

    def _link(self, before: Operator | None, behind: Operator | None) -> None:
        self._after[before], self._before[behind] = behind, before

    def _number(self) -> None:
        for place, op in enumerate(self, 1):
            self._numbers[op] = place * self._GAP


class Editor:
    """A graph during changes; :meth:`finish` ends them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.writers: dict[str, Operator] = {}
        # A dict as an ordered set: a tensor such as a zero point may be read by every operator.
        self.readers: dict[str, dict[Reader, None]] = {}
        self._outputs = frozenset(graph.outputs)
        self._chain = Chain(graph.operators)
        graph.operators = self._chain  # type: ignore[assignment]
        for op in graph.operators:
            self._attach(op)

    def finish(self) -> None:
        """Give the graph a plain list of its operators again."""
        self.graph.operators = list(self._chain)

    # Questions

    def is_q(self, op: Operator | None) -> bool:
        return op is not None and op.op_type == "QuantizeLinear" and op.domain in ("", MICROSOFT)

    def is_dq(self, op: Operator | None) -> bool:
        return op is not None and op.op_type == "DequantizeLinear" and op.domain in ("", MICROSOFT)

    def is_output(self, tensor: str) -> bool:
        return tensor in self._outputs

    def reads(self, tensor: str) -> list[Reader]:
        """Return every place that reads a tensor, one operator perhaps several times."""
        return [*self.readers.get(tensor, ())]

    def only_reader(self, tensor: str) -> Reader | None:
        """Return the one place that reads a tensor; None if there are more, or it is an output."""
        found = self.readers.get(tensor, {})
        return next(iter(found)) if len(found) == 1 and not self.is_output(tensor) else None

    def writer(self, op: Operator, place: int) -> Operator | None:
        return self.writers.get(op.inputs[place]) if op.has(place) else None

    def constant(self, op: Operator, place: int) -> np.ndarray | None:
        return self.graph.constants.get(op.inputs[place]) if op.has(place) else None

    def codes(self, op: Operator) -> Codes | None:
        """Return what a Q or DQ says; None if its parameters are computed, blocked or not float32."""
        scale, zero = self.constant(op, 1), self.constant(op, 2)
        if scale is None or scale.dtype != np.float32 or (op.has(2) and zero is None):
            return None
        if op.attribute("block_size", 0) or scale.ndim > 1 or (zero is not None and zero.ndim > 1):
            return None
        dtype = zero.dtype.name if zero is not None else self._dtype_without_zero(op)
        if dtype is None:
            return None
        return Codes(scale, zero, dtype, int(op.attribute("axis", 1)))

    def _dtype_without_zero(self, op: Operator) -> str | None:
        if self.is_dq(op):
            return self.dtype(op.inputs[0])
        given = op.attribute("output_dtype", 0)
        if not given:
            return "uint8"
        from onnx import TensorProto

        names = {TensorProto.INT8: "int8", TensorProto.UINT8: "uint8", TensorProto.INT16: "int16"}
        return {**names, TensorProto.UINT16: "uint16"}.get(given)

    def dtype(self, tensor: str) -> str | None:
        """Return a tensor's type where it is known before conversion."""
        if tensor in self.graph.constants:
            return self.graph.constants[tensor].dtype.name
        if tensor in self.graph.inputs:
            return self.graph.inputs[tensor].dtype
        op = self.writers.get(tensor)
        if op is not None and self.is_q(op):
            codes = self.codes(op)
            return None if codes is None else codes.dtype
        return self.graph.declared.get(tensor, (None, None))[0]

    # Changes

    def name(self, stem: str) -> str:
        """Return a name that no tensor has."""
        return self.graph.fresh(stem)

    def add_constant(self, stem: str, array: Any) -> str:
        made = self.name(stem)
        self.graph.constants[made] = np.asarray(array)
        return made

    def make(
        self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], like: Operator,
        attributes: dict[str, Any] | None = None, domain: str = "",
    ) -> Operator:  # fmt: skip
        """Return a new operator, which takes another's label."""
        return Operator(
            like.label, op_type, tuple(inputs), tuple(outputs), attributes or {}, self.graph, domain
        )

    def changed(self, op: Operator, inputs: Sequence[str], outputs: Sequence[str]) -> Operator:
        """Return an operator that reads and writes other tensors."""
        proto = None if op.proto is None else renamed(op.proto, inputs, outputs)
        return dataclasses.replace(op, inputs=tuple(inputs), outputs=tuple(outputs), proto=proto)

    def replace(self, old: Operator, *new: Operator) -> None:
        """Put operators in the place of one."""
        self._chain.put(old, *new)
        self.remove(old)
        for op in new:
            self._attach(op)

    def insert(self, at: Operator, *new: Operator, after: bool) -> None:
        """Put operators before or after another."""
        self._chain.put(at, *new, after=after)
        for op in new:
            self._attach(op)

    def remove(self, *old: Operator) -> None:
        for op in old:
            self._chain.remove(op)
            self._detach(op)

    def set_input(self, reader: Reader, tensor: str) -> Operator:
        """Let one place read another tensor; return the changed operator."""
        inputs = list(reader.op.inputs)
        inputs[reader.place] = tensor
        changed = self.changed(reader.op, inputs, reader.op.outputs)
        self.replace(reader.op, changed)
        return changed

    def redirect(self, old: str, new: str) -> bool:
        """Let who reads a tensor read another; False, and nothing done, if a subgraph reads it."""
        found = self.reads(old)
        if any(place == CAPTURED for _, place in found):
            return False
        for op in dict.fromkeys(op for op, _ in found):
            inputs = [new if tensor == old else tensor for tensor in op.inputs]
            self.replace(op, self.changed(op, inputs, op.outputs))
        return True

    def drop_unread(self) -> None:
        """Remove the Q and DQ operators whose outputs nobody reads any more."""
        for op in reversed(list(self.graph.operators)):
            if (self.is_q(op) or self.is_dq(op)) and not any(
                self.reads(tensor) or self.is_output(tensor) for tensor in op.outputs
            ):
                self.remove(op)

    def _attach(self, op: Operator) -> None:
        self.writers |= {tensor: op for tensor in op.outputs if tensor}
        for reader in _readers(op):
            self.readers.setdefault(reader[0], {})[reader[1]] = None

    def _detach(self, op: Operator) -> None:
        for tensor in op.outputs:
            if self.writers.get(tensor) is op:
                del self.writers[tensor]
        for tensor, reader in _readers(op):
            del self.readers[tensor][reader]


def _readers(op: Operator) -> list[tuple[str, Reader]]:
    found = [(tensor, Reader(op, place)) for place, tensor in enumerate(op.inputs) if tensor]
    return found + [(tensor, Reader(op, CAPTURED)) for tensor in op.captured]
