"""The comparison of a recorded product in local time, and the search for the mistake that explains it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as pairs
from typing import Any

import numpy as np

from systolic import _check
from systolic.array import State
from systolic.config import ArrayConfig
from systolic.cosim.local_time import Points, Product, expected
from systolic.cosim.mistakes import MISTAKES, where
from systolic.cosim.model import Model, Values
from systolic.cosim.report import Finding, Report, WrongValue
from systolic.cosim.samples import Recorded, as_columns, names_of, recorded, valids
from systolic.cosim.signals import ACCUMULATOR, MOST_CYCLES, SignalMap
from systolic.formats import as_numbers, differ

_MOST_LISTED = 16

# How far values are looked for at other times.
_LATENCIES = (0, 1, -1, 2, -2)
_HOPS = (0, 1, 2, 3)

# After the first one that streams, in the first attempt of a mistake.
_FIRST_BEATS = 8


@dataclass(eq=False)
class Reading:
    """The values of one place at the points of a product.

    Parameters
    ----------
    name : str
    points : Points
    samples : ndarray of int, (beats, rows, cols)
        In which sample each value is.
    got : ndarray, (beats, rows, cols)
    known : ndarray of bool
        False where the RTL had X or Z.
    expected : ndarray, (beats, rows, cols)
    """

    name: str
    points: Points
    samples: np.ndarray
    got: np.ndarray
    known: np.ndarray
    expected: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Where values differ."""
        return self.points.mask & (~self.known | differ(self.got, self.expected))


def diagnose(
    config: ArrayConfig, state: State | None, signals: SignalMap | None, x: Any, w: Any, samples: Any,
    start: int, outputs: Any,
) -> Report:  # fmt: skip
    """Compare a recorded product; see :meth:`systolic.Scoreboard.diagnose`."""
    product = Product.of(config, x, w)
    start = _check.integer(start, "start", minimum=-MOST_CYCLES, maximum=MOST_CYCLES)
    sums = None if outputs is None else _outputs(product, outputs)
    if samples is None and sums is None:
        raise ValueError("diagnose takes samples, outputs or both; there is nothing to compare")
    readings: list[Reading] = []
    held: list[WrongValue] = []
    records: dict[str, Recorded] = {}
    timed = product
    if samples is not None:
        signals = _given(signals, samples, product).checked(config)
        names = [name for name in signals.signals if product.compared(name)]
        if not names:
            raise ValueError(
                f"{', '.join(signals.signals)} have no value for each (m, r, c): compare them edge by edge, "
                "by compare() or sample()"
            )
        points = {name: product.points(name) for name in names}
        records, bits = _records(product, signals, names, samples)
        counts = len(next(iter(records.values())).values)
        at = {n: _times(product, signals, n, points[n], bits.get(n), start, counts) for n in names}
        right = expected(product, names, state)
        readings = [
            Reading(n, points[n], at[n], *_taken(records[n], at[n]), right[n][points[n].beats]) for n in names
        ]
        if signals.held_psums:
            held = _held(product, signals, readings, records, start)
        timed = _as_streamed(product, signals, readings, bits, start)
    else:
        right = expected(product, [], state)
    wrong = sum(int(np.count_nonzero(reading.wrong)) for reading in readings) + len(held)
    compared = sum(int(np.count_nonzero(reading.points.mask)) for reading in readings)
    if sums is not None:
        compared += sums.size
        wrong += int(np.count_nonzero(differ(sums, right["outputs"])))
    if not wrong:
        return Report(compared=compared)
    upstream = _upstream(product, readings, held, sums, right["outputs"])
    findings: list[Finding] = []
    right_sums = sums is None or not differ(sums, right["outputs"]).any()
    if readings and signals is not None and not held and right_sums:
        findings += _elsewhere(product, signals, readings, records, start)
    more, tried = _explained(product, state, readings, sums)
    if not more and timed is not product:  # the array may have gone on while nothing was valid
        more, again = _explained(timed, state, readings, sums)
        tried += again
    return Report(compared=compared, wrong=wrong, upstream=upstream, findings=(*findings, *more), tried=tried)


def _given(signals: SignalMap | None, samples: Any, product: Product) -> SignalMap:
    if signals is not None:
        if not signals.signals:
            raise ValueError('the map names no signals; try signals={"psum": "pe_{r}_{c}.psum"}')
        return signals
    # Without a map, signals are called as the registers are.
    if not isinstance(samples, dict) or not samples:
        raise TypeError(
            "without a map, samples are a dict of registers, (cycles, rows, cols) each, such as "
            f"{{'psum': ...}}, not {_check.kind(samples)}; or give the Scoreboard a map"
        )
    return SignalMap(signals={name: str(name).replace("{", "{{").replace("}", "}}") for name in samples})


def _outputs(product: Product, outputs: Any) -> np.ndarray:
    array = _check.as_array(outputs, "outputs")
    size = len(product.x), product.w.shape[1]
    if array.dtype.kind not in "iubfV":
        raise TypeError(f"outputs must hold numbers, not {array.dtype}")
    if array.shape != size:
        raise ValueError(
            f"outputs must be {_check.shape(size)}, as x @ w is, not {_check.shape(array.shape)}"
        )
    if array.dtype.kind == "f" and not product.config.format.is_float:
        raise TypeError(f"outputs must hold integers, not {array.dtype}")
    return as_numbers(array)


def _records(
    product: Product, signals: SignalMap, names: list[str], samples: Any
) -> tuple[dict[str, Recorded], dict[str, Recorded]]:
    """Return what the places of a map held, and their valid bits."""
    named: dict[str, None] = {}
    for name in names:
        signal, place = signals.signal(name), product.places[name]
        for pattern in (signal.name, signal.valid):
            if pattern is not None:
                named |= dict.fromkeys(names_of(pattern, place))
    columns = as_columns(samples, named)
    values, bits = {}, {}
    for name in names:
        signal, place = signals.signal(name), product.places[name]
        values[name] = recorded(columns, signal, place)
        if signal.valid is not None:
            bits[name] = valids(columns, signal, place)
    return values, bits


def _times(
    product: Product, signals: SignalMap, name: str, points: Points, valid: Recorded | None, start: int,
    count: int,
) -> np.ndarray:  # fmt: skip
    """Return which sample holds each value: by the map's times, or the valid bits one after the other."""
    place = product.places[name]
    rows, cols = np.array(place.rows)[:, None], np.array(place.cols)
    if valid is None:
        at = points.beats[:, None, None] + start + signals.delay(name, rows, cols)
        used = at[points.mask]
        if len(used) and (used.min() < 0 or used.max() >= count):
            late = int(used.max()) - count + 1
            what = f"record {late} more" if late > 0 else "start says which sample is that of cycle 0"
            raise ValueError(
                f"there are {count} samples, but the map has values of {name} in samples {used.min()} to "
                f"{used.max()}; {what}"
            )
        return np.where(points.mask, at, 0)
    at = np.zeros(points.mask.shape, np.intp)
    for i, j in np.ndindex(points.mask.shape[1:]):
        due = points.mask[:, i, j]
        ones = np.flatnonzero((valid.values[max(start, 0) :, i, j] == 1) & valid.known[max(start, 0) :, i, j])
        ones += max(start, 0)
        wanted = int(np.count_nonzero(due))
        if not wanted:
            continue
        if len(ones) == wanted:
            at[due, i, j] = ones
        elif len(ones) == len(due):
            at[:, i, j] = ones
        else:
            signal = str(signals.signal(name).valid).format(r=place.rows[i], c=place.cols[j])
            raise ValueError(
                f"the valid signal {signal!r} is 1 in {len(ones)} samples, but {name} of PE "
                f"({place.rows[i]}, {place.cols[j]}) has {wanted} values in this product"
            )
    return at


def _taken(record: Recorded, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, cols = np.indices(at.shape[1:])
    return record.values[at, rows, cols], record.known[at, rows, cols]


def _held(
    product: Product, signals: SignalMap, readings: list[Reading], records: dict[str, Recorded], start: int
) -> list[WrongValue]:
    """Return the sums that change where they are not valid."""
    name = product.config.dataflow_record.register_of("sum").name
    found: list[WrongValue] = []
    for reading in (reading for reading in readings if reading.name == name):
        record = records[name]
        for row, col in np.ndindex(reading.got.shape[1:]):
            due = reading.points.mask[:, row, col]
            if not due.any():
                continue
            at, numbers = reading.samples[due, row, col], np.flatnonzero(due)
            last = np.searchsorted(at, np.arange(int(at[0]), int(at[-1]) + 1), "right") - 1
            values = record.values[at[0] : at[-1] + 1, row, col]
            kept = record.values[at[last], row, col]
            for gap in np.flatnonzero(differ(values, kept))[:1].tolist():
                beat = numbers[last[gap]]
                stay, step = int(reading.points.stays[beat]), int(reading.points.steps[beat])
                index = product.index(name, stay, step, row, col)
                numbers_of = int(at[0]) + gap, values[gap].item(), kept[gap].item()
                found.append(WrongValue(name, row, col, *index, *numbers_of))
    return found


def _as_streamed(
    product: Product, signals: SignalMap, readings: list[Reading], bits: dict[str, Recorded], start: int
) -> Product:
    """Return the product with its folds at the times that valid signals show."""
    for reading in readings:
        points = reading.points
        if reading.name in bits and len(points.beats) == sum(len(stay.lines) for stay in product.stays):
            first = {int(s): i for i, s in reversed(list(enumerate(points.stays)))}
            delay = int(signals.delay(reading.name, *(n[0] for n in product.places[reading.name][2:4])))
            lines = [i for _, i in sorted(first.items())]
            return product.timed([int(reading.samples[i, 0, 0]) - start - delay for i in lines])
    return product


def _upstream(
    product: Product, readings: list[Reading], held: list[WrongValue], sums: np.ndarray | None,
    right: np.ndarray,
) -> tuple[WrongValue, ...]:  # fmt: skip
    """Return the first wrong value of each PE that has right inputs, most upstream first."""
    found: dict[tuple[int, int], tuple[tuple[int, ...], WrongValue]] = {}
    stage = _stages(product)
    spoiled = _spoiled(product, readings)
    for reading in readings:
        place, points = product.places[reading.name], reading.points
        wrong = reading.wrong & ~spoiled.get(reading.name, np.zeros_like(reading.wrong))
        for i, row, col in _firsts(wrong):
            r, c = place.rows[row], place.cols[col]
            rank = (r + c, r, int(points.beats[i]), stage[reading.name])
            if (r, c) in found and found[r, c][0] <= rank:
                continue
            index = product.index(reading.name, int(points.stays[i]), int(points.steps[i]), r, c)
            at = i, row, col
            got = reading.got[at].item() if reading.known[at] else "X"
            value = WrongValue(
                reading.name, r, c, *index, int(reading.samples[at]), got, reading.expected[at].item()
            )
            found[r, c] = rank, value
    for value in held:
        found.setdefault(value[1:3], ((value.row + value.col, value.row, value.sample or 0, 0), value))
    ranked = [value for _, value in sorted(found.values(), key=lambda each: each[0])]
    if not ranked and sums is not None:
        row, col = np.argwhere(differ(sums, right))[0].tolist()
        values = sums[row, col].item(), right[row, col].item()
        ranked = [WrongValue("outputs", row, col, row, col, None, None, *values)]
    return tuple(ranked[:_MOST_LISTED])


def _firsts(wrong: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield the first wrong beat of each row and column."""
    any_wrong, first = wrong.any(axis=0), wrong.argmax(axis=0)
    for row, col in np.argwhere(any_wrong).tolist():
        yield int(first[row, col]), row, col


def _stages(product: Product) -> dict[str, int]:
    """Return the order in which places of one PE depend on each other: ports, control, operands, sums."""
    flow = product.config.dataflow_record
    order = {"control": 1, "shadow": 2, "pass": 2, "west operand": 3, "north operand": 3, "sum": 4}
    if flow.held:
        order |= {"shadow": 5, "pass": 5}
    found = {register.name: order[register.role] for register in flow.registers}
    return {name: found.get(name, 6 if name == ACCUMULATOR else 0) for name in product.places}


def _spoiled(product: Product, readings: list[Reading]) -> dict[str, np.ndarray]:
    """Return where a value has a wrong input: of a sum the one above it, of what moves the one before it."""
    flow = product.config.dataflow_record
    moves = {register.name: register.moves for register in flow.registers}
    by_name = {reading.name: reading for reading in readings}
    found = {}
    for reading in readings:
        wrong = reading.wrong
        spoiled = np.zeros_like(wrong)
        if moves.get(reading.name) == "right":
            spoiled[:, :, 1:] |= wrong[:, :, :-1]
        elif moves.get(reading.name) == "down":
            spoiled[:, 1:] |= wrong[:, :-1]
        elif reading.name == ACCUMULATOR and not flow.held and flow.leaves in by_name:
            spoiled |= by_name[flow.leaves].wrong[:, -1:]
        elif reading.name == flow.leaves:  # of sums that drain, one row up a beat earlier
            spoiled[1:, 1:] |= wrong[:-1, :-1]
        found[reading.name] = spoiled
    return found


def _elsewhere(
    product: Product, signals: SignalMap, readings: list[Reading], records: dict[str, Recorded], start: int
) -> list[Finding]:
    """Return which other times of the map give right values everywhere."""
    if any(signals.signal(reading.name).valid is not None for reading in readings):
        return []
    tried = [(0, (down, right)) for down, right in pairs(_HOPS, repeat=2)]
    tried += [(late, signals.hop) for late in _LATENCIES]
    for late, hop in sorted(tried, key=lambda each: (each[0] != 0) + (each[1] != signals.hop)):
        if all(_right_at(product, signals, reading, records, start + late, hop) for reading in readings):
            if late:
                word = "late" if late > 0 else "early"
                cycles = f"{abs(late)} cycle{'s' * (abs(late) > 1)}"
                return [Finding("values at other times", f"all are right, but {cycles} {word}: latency")]
            return [Finding("values at other times", f"all are right with hop={hop} in the map")]
    return []


def _right_at(
    product: Product, signals: SignalMap, reading: Reading, records: dict[str, Recorded], start: int,
    hop: tuple[int, int],
) -> bool:  # fmt: skip
    place, mask = product.places[reading.name], reading.points.mask
    rows, cols = np.array(place.rows)[:, None], np.array(place.cols)
    delay = signals.signal(reading.name).latency + rows * hop[0] + cols * hop[1]
    at = np.where(mask, reading.points.beats[:, None, None] + start + delay, 0)
    record = records[reading.name]
    if at.min() < 0 or at.max() >= len(record.values):
        return False
    got, known = _taken(record, at)
    return not (mask & (~known | differ(got, reading.expected))).any()


def _explained(
    product: Product, state: State | None, readings: list[Reading], outputs: np.ndarray | None
) -> tuple[list[Finding], int]:
    """Return the usual mistakes that make all recorded values, and how many ways were tried."""
    flow = product.config.dataflow_record
    registers = [reading for reading in readings if product.places[reading.name].kind != "port"]
    if any((reading.points.mask & ~reading.known).any() for reading in registers):
        return [], 0
    beats = {reading.name: product.points(reading.name).beats for reading in registers}
    model = Model(product, state)
    wrong = [np.nonzero(reading.wrong)[1:] for reading in registers]
    rows, cols = (sorted({int(i) for at in wrong for i in at[axis]}) for axis in (0, 1))
    place = where(product, rows, cols)

    def makes(values: Values, beats: int) -> bool:
        return not any(
            (mask[:stop] & differ(values[name][at[:stop]], got[:stop])).any()
            for name, at, mask, got in known
            if name in values and (stop := int(np.searchsorted(at, beats)))
        )

    # Most ways are wrong on the first beats already, and need not be tried on all. Operands and control bits
    # that are right stay so if the mistake is made behind their registers.
    sums = {register.name for register in flow.registers if register.holds == "sum"} | {ACCUMULATOR}
    known = []
    for reading in (reading for reading in registers if reading.name in sums or reading.wrong.any()):
        order = np.argsort(beats[reading.name], kind="stable")
        known.append(
            (reading.name, beats[reading.name][order], reading.points.mask[order], reading.got[order])
        )
    first = product.stays[0].streams + _FIRST_BEATS
    parts = [part for part in (first, 4 * first) if known and 2 * part < product.length]
    found, tried = [], 0
    for mistake in MISTAKES:
        for detail, change in mistake.ways(product, place):
            tried += 1
            if not all(makes(model.values(change, part), part) for part in parts):
                continue
            values = model.values(change)
            if makes(values, product.length) and (
                outputs is None or not differ(values["outputs"], outputs).any()
            ):
                found.append(Finding(mistake.name, detail))
                break
    return found, tried
