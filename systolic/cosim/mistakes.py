"""The usual mistakes of RTL arrays and of their benches, each as changes of the model that show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from systolic.cosim.local_time import Product, Stay, controls
from systolic.cosim.model import Change

Ways = Iterator[tuple[str, Change]]
"""In how many ways a mistake is made: what exactly, and what it changes."""

# Rows or columns of an array, of which each is tried as the one where a mistake begins.
_MOST_LANES = 16


class Where(NamedTuple):
    """The rows and columns of PEs in which a mistake may begin."""

    rows: tuple[int, ...]
    cols: tuple[int, ...]


@dataclass(frozen=True)
class Mistake:
    """A usual mistake.

    Parameters
    ----------
    name : str
    ways : callable
        (Product, Where) -> its ways.
    """

    name: str
    ways: Callable[[Product, Where], Ways]


def where(product: Product, rows: list[int], cols: list[int]) -> Where:
    """Return where a mistake may begin that shows in these rows and columns."""

    def lanes(first: list[int], count: int) -> tuple[int, ...]:
        if count <= _MOST_LANES:
            return tuple(range(count))
        return tuple({0, *first[:1]})

    return Where(lanes(rows, product.config.rows), lanes(cols, product.config.cols))


def _loaded(product: Product, where: Where) -> Ways:
    def rows(stay: Stay) -> Stay:
        return stay._replace(tile=stay.tile[::-1])

    def padded(stay: Stay) -> Stay:
        tile = np.zeros((product.config.rows, stay.tile.shape[1]), stay.tile.dtype)
        tile[: len(stay.tile)] = stay.tile
        return stay._replace(tile=tile[::-1])

    def streamed(stay: Stay) -> Stay:
        return stay._replace(lines=stay.lines[:, ::-1])

    if product.config.dataflow_record.held:
        yield "the rows of w stream last first", Change(load=rows)
        yield "the rows of x are reversed", Change(load=streamed)
    else:
        yield "the tile enters first row first", Change(load=padded)
        yield "the rows of the tile are reversed", Change(load=rows)
    if product.config.dataflow_record.exchanged:
        yield "the rows of w are reversed", Change(load=streamed)


def _lanes(product: Product, where: Where) -> Ways:
    config = product.config

    def tile(stay: Stay) -> Stay:
        wide = np.zeros((len(stay.tile), config.cols), stay.tile.dtype)
        wide[:, : stay.tile.shape[1]] = stay.tile
        return stay._replace(tile=wide[:, ::-1])

    def lines(stay: Stay) -> Stay:
        deep = np.zeros((len(stay.lines), config.rows), stay.lines.dtype)
        deep[:, : stay.lines.shape[1]] = stay.lines
        return stay._replace(lines=deep[:, ::-1])

    yield "the north port's columns are reversed", Change(load=tile)
    if not config.dataflow_record.exchanged:  # there these are rows of w
        yield "the west port's rows are reversed", Change(load=lines)


def _transposed(product: Product, where: Where) -> Ways:
    config, held = product.config, product.config.dataflow_record.held

    def tile(stay: Stay) -> Stay:
        return stay._replace(tile=_fitting(stay.tile.T, len(stay.tile) if held else config.rows, config.cols))

    def reread(stay: Stay) -> Stay:
        return stay._replace(tile=stay.tile.ravel().reshape(stay.tile.shape[::-1]).T)

    def lines(stay: Stay) -> Stay:
        return stay._replace(lines=_fitting(stay.lines.T, len(stay.lines), config.rows))

    def streamed(stay: Stay) -> Stay:
        return stay._replace(lines=stay.lines.ravel().reshape(stay.lines.shape[::-1]).T)

    def exchanged(stay: Stay) -> Stay:
        return stay._replace(lines=stay.lines.T.ravel().reshape(stay.lines.shape))

    yield "of the operand from the north", Change(load=tile)
    yield "of the operand from the north, read from memory column by column", Change(load=reread)
    yield "of the operand from the west", Change(load=lines)
    yield "of the operand from the west, read from memory column by column", Change(load=streamed)
    yield "of the operand from the west, read from memory row by row", Change(load=exchanged)


def _fitting(values: np.ndarray, most: int, wide: int) -> np.ndarray:
    """Return the part of a tile that an array takes, with zeros up to `most` rows."""
    found = np.zeros((most, min(wide, values.shape[1])), values.dtype)
    part = values[:most, :wide]
    found[: len(part)] = part
    return found


def _delays(product: Product, where: Where, sign: int) -> Iterator[tuple[str, np.ndarray]]:
    rows, cols = product.config.rows, product.config.cols
    r, c = np.indices((rows, cols))
    yield "everywhere", np.full((rows, cols), sign)
    if rows > 1:
        yield "more with each row", sign * r
    if cols > 1:
        yield "more with each column", sign * c
    if rows > 1 and cols > 1:
        yield "more with each row and column", sign * (r + c)
    for row in where.rows:
        if row > 0:
            yield f"from row {row} on", sign * (r >= row)
        if rows > 1:
            yield f"in row {row}", sign * (r == row)
    for col in where.cols:
        if col > 0:
            yield f"from column {col} on", sign * (c >= col)
        if cols > 1:
            yield f"in column {col}", sign * (c == col)


def _skew(sign: int) -> Callable[[Product, Where], Ways]:
    word = "late" if sign > 0 else "early"

    def ways(product: Product, where: Where) -> Ways:
        flow, names = product.config.dataflow_record, controls(product.config)
        west = flow.register_of("west operand").name
        ports = [p.name for p in flow.ports if p.side == "north" and p.feeds != flow.leaves]
        control = list(dict.fromkeys(names))
        moved = {f"the {west}s": [west], f"the {west}s and their control": [west, *control]}
        moved |= {"the control bits": control, f"the north {ports[0]}s": ports}
        for what, together in moved.items():
            for place, late in _delays(product, where, sign):
                yield f"{what} are {word} by one cycle, {place}", Change(late=dict.fromkeys(together, late))
        if sign < 0 and not flow.held:
            yield "the tile reaches all rows at once", Change(all_rows_at_once=True)

    return ways


def _swap(sign: int) -> Callable[[Product, Where], Ways]:
    def ways(product: Product, where: Where) -> Ways:
        names, size = controls(product.config), (product.config.rows, product.config.cols)
        if sign > 0 and not product.config.dataflow_record.held:
            yield "its own beat still takes the tile before", Change(old_operand=True)
        yield "by one beat", Change(late={names.swap: np.full(size, sign)})

    return ways


def _signs(product: Product, where: Where) -> Ways:
    numbers = product.config.format
    if numbers.is_float:
        return
    wrong = numbers.activation.startswith("u"), numbers.weight.startswith("u")
    words = {False: "unsigned for signed", True: "signed for unsigned"}
    yield f"activations {words[wrong[0]]}", Change(signs=(wrong[0], None))
    yield f"weights {words[wrong[1]]}", Change(signs=(None, wrong[1]))
    yield "both operands", Change(signs=wrong)


def _extension(product: Product, where: Where) -> Ways:
    numbers = product.config.format
    if numbers.is_float:
        return
    whole = numbers.activation_bits + numbers.weight_bits
    yield f"products of {whole} bits are extended with zeros", Change(product_bits=(whole, False))
    for bits in range(whole - 1, 1, -1):
        for signed in (True, False):
            how = "" if signed else ", extended with zeros"
            yield f"products are cut to {bits} bits{how}", Change(product_bits=(bits, signed))
    for bits in range(min(numbers.psum_bits - 1, 62), 3, -1):
        for signed in (False, True):
            how = "" if signed else ", extended with zeros"
            yield f"sums are cut to {bits} bits{how}", Change(sum_bits=(bits, signed))
            if not product.config.dataflow_record.held:
                yield f"sums from above are cut to {bits} bits{how}", Change(above_bits=(bits, signed))


def _kept_sums(product: Product, where: Where) -> Ways:
    if product.config.dataflow_record.held:
        yield "a sum goes on after the swap", Change(cleared=False)
        return
    yield "the first k tile of an output adds to what is there", Change(cleared=False)


def _lost_sums(product: Product, where: Where) -> Ways:
    if not product.config.dataflow_record.held:
        yield "each k tile replaces the one before", Change(adds=False)


def _taken(product: Product, where: Where) -> Ways:
    for late in (1, -1):
        yield f"one beat {'late' if late > 0 else 'early'}", Change(taken_late=late)


def _overflow(product: Product, where: Where) -> Ways:
    numbers = product.config.format
    if not numbers.is_float:
        other = "wrap" if numbers.saturates else "saturate"
        yield f"sums {other}", Change(overflow=other)


MISTAKES = (
    Mistake("rows loaded in the wrong order", _loaded),
    Mistake("a transposed tile", _transposed),
    Mistake("signed and unsigned mixed up", _signs),
    Mistake("swap late", _swap(1)),
    Mistake("swap early", _swap(-1)),
    Mistake("one cycle of skew too many", _skew(1)),
    Mistake("one cycle of skew too few", _skew(-1)),
    Mistake("missing sign extension", _extension),
    Mistake("accumulators not cleared", _kept_sums),
    Mistake("accumulators do not add", _lost_sums),
    Mistake("sums taken at the wrong time", _taken),
    Mistake("lanes in the wrong order", _lanes),
    Mistake("saturated for wrapped, or wrapped for saturated", _overflow),
)
"""The usual mistakes, in the order in which they are tried."""
