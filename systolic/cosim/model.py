"""A model of the array in local time that can make the usual mistakes; it explains wrong numbers, no others.

What is right is the emulator. Without a mistake the model has its values, which the tests check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from systolic.array import State
from systolic.cosim.local_time import Product, Stay, accumulated, controls
from systolic.formats import Format, as_numbers

Values = dict[str, np.ndarray]
"""By the names of places, (beats, rows, cols); and "outputs", (M, N)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """One way in which an array, or the bench that drives it, is wrong.

    Parameters
    ----------
    late : dict of str to ndarray of int, (rows, cols)
        By port: beats by which its values reach each PE too late, negative if too early.
    load : callable, optional
        Another fold than was meant.
    all_rows_at_once : bool
        Whether the chain of tiles has no delay from row to row.
    old_operand : bool
        Whether a swap's own beat is multiplied with the tile before it.
    signs : (bool or None, bool or None)
        Whether activations and weights are multiplied as signed; None: as their types say.
    product_bits : (int, bool), optional
        Bits of a product that are kept, and whether their sign is extended.
    sum_bits : (int, bool), optional
        Bits of the register of sums that are kept, and whether their sign is extended.
    above_bits : (int, bool), optional
        Likewise of the sum that arrives from above.
    overflow : str, optional
        Another overflow.
    cleared, adds : bool
        Whether accumulators start again with each output, and add k tiles.
    taken_late : int
        Beats by which the accumulators take sums too late.
    """

    late: dict[str, np.ndarray] = field(default_factory=dict)
    load: Callable[[Stay], Stay] | None = None
    all_rows_at_once: bool = False
    old_operand: bool = False
    signs: tuple[bool | None, bool | None] = (None, None)
    product_bits: tuple[int, bool] | None = None
    sum_bits: tuple[int, bool] | None = None
    above_bits: tuple[int, bool] | None = None
    overflow: str | None = None
    cleared: bool = True
    adds: bool = True
    taken_late: int = 0


class Model:
    """The array of one product.

    Parameters
    ----------
    product : Product
    state : State, optional
        Registers at the start; of those that move, only the tiles.
    """

    def __init__(self, product: Product, state: State | None = None) -> None:
        self.product, self.config = product, product.config
        self.flow = product.config.dataflow_record
        self.names = controls(product.config)
        self._registers = (State.idle(self.config) if state is None else state).registers
        self._local = product.local_ports()
        self._tiles: dict[int, Values] = {}

    def _name(self, role: Any) -> str:
        return self.flow.register_of(role).name

    def values(self, change: Change, beats: int | None = None) -> Values:
        """Return what the array holds on each beat if it is wrong like this.

        With `beats`, only so many, and some more that may lack what comes early; then without accumulators
        and outputs.
        """
        local = self._local
        if change.load is not None:
            local = self.product.local_ports(tuple(change.load(stay) for stay in self.product.stays))
        if beats is not None:
            local = {n: v[: beats + self.config.rows + self.config.cols] for n, v in local.items()}
        numbers = self.config.format
        if change.overflow is not None:
            numbers = replace(numbers, overflow=change.overflow)
        found = self._held(local, numbers, change) if self.flow.held else self._moving(local, numbers, change)
        found |= {
            f"{port.side}_{port.name}": as_numbers(local[port.name])[:, :, None]
            if port.side == "west"
            else as_numbers(local[port.name])[:, None, :]
            for port in self.flow.ports
        }
        if beats is not None:
            return found
        writes, sums = accumulated(
            self.product,
            found[self.flow.leaves][:, -1],
            cleared=change.cleared or self.flow.held,
            adds=change.adds,
            late=change.taken_late,
            numbers=numbers,
        )
        return found | {"accumulator": writes, "outputs": sums}

    def _arriving(self, local: dict[str, np.ndarray], change: Change, name: str) -> np.ndarray:
        """Return what reaches each PE on each beat from a port of its row or column, (beats, rows, cols)."""
        values = local[name]
        port = next(port for port in self.flow.ports if port.name == name)
        lane = np.arange(self.config.rows)[:, None] if port.side == "west" else np.arange(self.config.cols)
        size = (len(values), self.config.rows, self.config.cols)
        late = change.late.get(name)
        if late is None:
            return np.broadcast_to(values[:, lane] if port.side == "west" else values[:, None, :], size)
        beat = np.arange(len(values))[:, None, None] - late
        inside = (beat >= 0) & (beat < len(values))
        taken = values[np.clip(beat, 0, len(values) - 1), lane]
        return np.where(inside, taken, np.zeros((), values.dtype))

    def _moving(self, local: dict[str, np.ndarray], numbers: Format, change: Change) -> Values:
        """Weight stationary and input stationary: tiles stay, sums move."""
        west, north = self._name("west operand"), self._name("north operand")
        a = self._arriving(local, change, west)
        swap = self._arriving(local, change, self.names.swap)
        tiles = self._loaded(local, change, north, swap)
        used = tiles[north]
        if change.old_operand:
            used = np.concatenate([as_numbers(self._registers[north])[None], used[:-1]])
        sums = np.zeros(a.shape, numbers.sum)
        products = self._products(a, used, change)
        above = np.zeros((len(a), self.config.cols), numbers.sum)
        for r in range(self.config.rows):
            line = _kept(above.copy(), change.above_bits)
            numbers.accumulate(line, products[:, r])
            sums[:, r] = above = _kept(line, change.sum_bits)
        lines = {west: as_numbers(a), self.names.swap: as_numbers(swap)}
        return lines | tiles | {self._name("sum"): as_numbers(sums)}

    def _loaded(self, local: dict[str, np.ndarray], change: Change, north: str, swap: np.ndarray) -> Values:
        """Return the operand that stays and the one behind it, on each beat."""
        chain, fed = self.names.chain, next(p.name for p in self.flow.ports if self._feeds_tile(p))
        moved = any(name in change.late for name in (chain, self.names.swap, fed))
        key = None
        # Others are seldom made twice, and of a large array each takes much memory.
        if change.load is None and not moved and not change.all_rows_at_once:
            key = len(swap)
            if key in self._tiles:
                return self._tiles[key]
        shift, weights = self._arriving(local, change, chain), self._arriving(local, change, fed)
        held, behind, passed = (
            as_numbers(self._registers[self._name(role)]) for role in ("north operand", "shadow", "pass")
        )
        weights = as_numbers(weights)
        used: np.ndarray = np.empty(weights.shape, weights.dtype)
        waiting = np.empty_like(used)
        for beat in range(len(used)):
            held = np.where(swap[beat], behind, held)
            passed = np.where(shift[beat], behind, passed)
            above = weights[beat]
            if not change.all_rows_at_once:
                # In local time a row takes what the row above has passed on, on the same beat.
                above = np.concatenate([above[:1], passed[:-1]])
            behind = np.where(shift[beat], above, behind)
            used[beat], waiting[beat] = held, behind
        found = {north: used, self._name("shadow"): waiting, chain: as_numbers(shift)}
        if key is not None:
            self._tiles[key] = found
        return found

    def _feeds_tile(self, port: Any) -> bool:
        return bool(port.side == "north" and port.feeds != self.flow.leaves)

    def _held(self, local: dict[str, np.ndarray], numbers: Format, change: Change) -> Values:
        """Output stationary: both operands stream, sums stay until a swap."""
        west, north = self._name("west operand"), self._name("north operand")
        a, b = self._arriving(local, change, west), self._arriving(local, change, north)
        swap = self._arriving(local, change, self.names.swap)
        drain = self._arriving(local, change, self.names.chain)
        products = self._products(a, b, change)
        acc, out, passed = (
            self._registers[self._name(role)].astype(numbers.sum) for role in ("sum", "shadow", "pass")
        )
        sums, outs = np.zeros(a.shape, numbers.sum), np.zeros(a.shape, numbers.sum)
        none = np.zeros((1, self.config.cols), acc.dtype)
        for beat in range(len(a)):
            passed = np.where(drain[beat], out, passed)
            above = np.concatenate([none, passed[:-1]])
            out = np.where(swap[beat], acc, np.where(drain[beat], above, out))
            acc = np.where(swap[beat] & change.cleared, np.zeros((), acc.dtype), acc)
            numbers.accumulate(acc, products[beat])
            acc = _kept(acc, change.sum_bits)
            sums[beat], outs[beat] = acc, out
        return {
            west: as_numbers(a), north: as_numbers(b), self.names.swap: as_numbers(swap),
            self._name("sum"): as_numbers(sums), self._name("shadow"): as_numbers(outs),
        }  # fmt: skip

    def _products(self, a: np.ndarray, b: np.ndarray, change: Change) -> np.ndarray:
        numbers = self.config.format
        if numbers.is_float:
            with np.errstate(all="ignore"):  # of these types products are exact in float32
                return a.astype(np.float32) * b.astype(np.float32)
        bits = numbers.activation_bits, numbers.weight_bits
        if self.flow.exchanged:
            bits = bits[::-1]
        signs = change.signs[::-1] if self.flow.exchanged else change.signs
        a, b = (
            values.astype(np.int64) if sign is None else _kept(values.astype(np.int64), (width, sign))
            for values, width, sign in zip((a, b), bits, signs, strict=True)
        )
        return _kept(a * b, change.product_bits)


def _kept(values: np.ndarray, bits: tuple[int, bool] | None) -> np.ndarray:
    """Return the low bits of integers, sign-extended or not."""
    if bits is None:
        return values
    width, signed = bits
    wide = values.astype(np.int64)
    spare = 64 - width
    low = (wide << spare) >> spare if signed else wide & ((1 << width) - 1)
    return low.astype(values.dtype)
