"""Parse option values: sizes, counts, shapes, machines."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace

from systolic import presets
from systolic._files import check_plain
from systolic.config import ArrayConfig, MachineConfig


def machine_of(options: argparse.Namespace) -> MachineConfig:
    """Return the machine that the options name: its size, dataflow, clock and buffers."""
    given = getattr(options, "machine", None)
    machine = given or presets.get(options.preset or "tpu-v1")
    if getattr(options, "array", None) is not None:
        machine = MachineConfig(options.array, clock_mhz=machine.clock_mhz)
    machine = _changed(machine, options)
    dataflow = getattr(options, "dataflow", None)
    if dataflow in (None, "all", machine.array.dataflow):
        return machine
    # Without the memories of a preset; a machine of the user's that has some is refused.
    return replace(machine, array=replace(machine.array, dataflow=dataflow), memory=given and given.memory)


def _changed(machine: MachineConfig, options: argparse.Namespace) -> MachineConfig:
    """Return a machine with --clock, --single-buffered and --accumulators."""
    if getattr(options, "clock", None) is not None:
        machine = replace(machine, clock_mhz=options.clock)
    array = machine.array
    if getattr(options, "single_buffered", False):
        array = replace(array, double_buffered=False)
    if getattr(options, "accumulators", None) is not None:
        if "output_stationary" in (getattr(options, "dataflow", None) or array.dataflow):
            raise ValueError("--accumulators are below the array, and output-stationary sums stay in the PEs")
        array = replace(array, accumulator_rows=options.accumulators)
    return replace(machine, array=array)


def names_machine(options: argparse.Namespace) -> bool:
    """Whether some option says which machine is meant."""
    names = ("array", "preset", "machine", "dataflow", "clock", "single_buffered", "accumulators")
    return any(getattr(options, name, None) not in (None, False) for name in names)


def clock(value: str) -> float:
    """Parse a clock in MHz."""
    try:
        mhz = float(value)
    except ValueError:
        mhz = 0.0
    if not 0 < mhz < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number of MHz, such as 700, not {value!r}")
    return mhz


def machine_file(value: str) -> MachineConfig:
    """Read a machine from a file of JSON, as ``MachineConfig.to_dict`` describes it."""
    try:
        check_plain(value, "a machine is a file of JSON")
        with open(value, encoding="utf-8") as file:
            return MachineConfig.from_dict(json.load(file))
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise argparse.ArgumentTypeError(
            f"{value} is no machine in JSON, as json.dumps(machine.to_dict()) writes it: {error}"
        ) from None


def array_size(value: str) -> ArrayConfig:
    """Parse an array size such as 256x256."""
    rows, times, cols = value.lower().partition("x")
    try:
        if not times:
            raise ValueError
        size = int(rows), int(cols)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be ROWSxCOLS, such as 256x256, not {value!r}") from None
    try:
        return ArrayConfig(*size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count(minimum: int) -> Callable[[str], int]:
    """Return a parser of integers that are at least `minimum`."""

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be an integer, not {value!r}") from None
        if number < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, not {number}")
        return number

    return parse


def window(value: str) -> tuple[int, int]:
    """Parse cycles such as 100:200."""
    start, colon, stop = value.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"must be START:STOP, such as 0:500, not {value!r}")
    return int(start), int(stop)


def fraction(value: str) -> float:
    """Parse a number from 0 to below 1."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to below 1, not {value!r}")
    return number


def shapes_of(options: argparse.Namespace) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of --shape by input, or None; ValueError if an input has two."""
    names = [name for name, _ in options.shape]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--shape is given twice for the input {name!r}")
    return dict(options.shape) or None


def shape_of(value: str) -> tuple[str, tuple[int, ...]]:
    """Parse an input's name and shape: ``image=1,3,224,224`` or ``image=1x3x224x224``."""
    name, equals, sizes = value.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.lower().replace(",", "x").split("x"))
    except ValueError:
        shape = (-1,)
    if not equals or not name or min(shape) < 0:
        raise argparse.ArgumentTypeError(f"must be NAME=SIZES, such as image=1x3x224x224, not {value!r}")
    return name, shape
