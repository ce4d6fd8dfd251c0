"""Parse option values: sizes, counts, shapes, machines."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from systolic import _plain, presets
from systolic._files import check_plain
from systolic.config import ArrayConfig, MachineConfig
from systolic.model import Model
from systolic.verifier.inputs import check_batch


def machine_of(options: argparse.Namespace, what: str | None = None) -> MachineConfig:
    """Return the one machine that the options name; ValueError if they name several: `what` takes one."""
    several = given_machines(options)
    if len(several) > 1:
        raise ValueError(
            f"{what or options.command} takes one machine, not {len(several)}: give --array, --machine or "
            "--preset once"
        )
    return machines_of(options)[0]


def machines_of(options: argparse.Namespace) -> list[MachineConfig]:
    """Return each machine that the options name: its size, dataflow, clock and buffers."""
    return [_changed(base, options) for base in given_machines(options) or [presets.get("tpu-v1")]]


def given_machines(options: argparse.Namespace) -> list[MachineConfig]:
    """Return the machines of --array, --machine or --preset as they are given; empty if none is."""
    arrays = [array for several in getattr(options, "array", None) or () for array in several]
    machines = getattr(options, "machine", None)
    files = machines if isinstance(machines, list) else []  # a name for systolic validate
    named = [presets.get(name) for name in options.preset or ()]
    clock_mhz = presets.get("tpu-v1").clock_mhz
    return [*(MachineConfig(array, clock_mhz=clock_mhz) for array in arrays), *files, *named]


def machine_names(options: argparse.Namespace) -> tuple[str, list[str]]:
    """Return which option names the machines, and its word for each of them."""
    kind = next(name for name in ("array", "machine", "preset") if name in options.given)
    words = options.given[kind].words
    return kind, [name for word in words for name in (word.split(",") if kind == "array" else [word])]


def _changed(machine: MachineConfig, options: argparse.Namespace) -> MachineConfig:
    """Return a machine with --clock, --single-buffered, --accumulators and --dataflow."""
    if getattr(options, "clock", None) is not None:
        machine = replace(machine, clock_mhz=options.clock)
    array = machine.array
    if getattr(options, "single_buffered", False):
        array = replace(array, double_buffered=False)
    if getattr(options, "accumulators", None) is not None:
        if "output_stationary" in (getattr(options, "dataflow", None) or array.dataflow):
            raise ValueError("--accumulators are below the array, and output-stationary sums stay in the PEs")
        array = replace(array, accumulator_rows=options.accumulators)
    dataflow = getattr(options, "dataflow", None)
    if dataflow in (None, "all", array.dataflow):
        return replace(machine, array=array)
    # Without the memories of a preset; a machine of the user's that has some is refused.
    memory = machine.memory if "machine" in options.given else None
    return replace(machine, array=replace(array, dataflow=dataflow), memory=memory)


MACHINE = ("array", "machine", "preset", "dataflow", "clock", "single_buffered", "accumulators")
"""The ``dest`` of each option that says which machine is meant."""


def names_machine(options: argparse.Namespace) -> bool:
    """Whether some option says which machine is meant."""
    return not options.given.keys().isdisjoint(MACHINE)


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
    """Read a machine from a file of YAML, JSON or TOML, as ``MachineConfig.to_dict`` describes it."""
    try:
        check_plain(value, "a machine is a file of YAML, JSON or TOML")
        found = _plain.load(value, "a machine", (".toml",))
    except (OSError, ValueError, ImportError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    try:
        return MachineConfig.from_dict(found)
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{value}: {error}") from None


def array_sizes(value: str) -> list[ArrayConfig]:
    """Parse an array size such as 256x256, or several with commas between them."""
    return [_array_size(each) for each in value.split(",")]


def _array_size(value: str) -> ArrayConfig:
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


def dataflow(value: str) -> str:
    """Parse the name of a dataflow: in full, or as ws, os or is."""
    return {"ws": "weight_stationary", "os": "output_stationary", "is": "input_stationary"}.get(value, value)


def numbers(*counts: int) -> Callable[[str], int | tuple[int, ...]]:
    """Return a parser of so many integers, such as 2 or 2,1: one as a number, several as a tuple."""

    def parse(value: str) -> int | tuple[int, ...]:
        try:
            found = tuple(map(int, value.split(",")))
        except ValueError:
            found = ()
        if len(found) not in counts:
            wanted = " or ".join(map(str, counts))
            raise argparse.ArgumentTypeError(f"must be {wanted} integers, such as 2 or 2,1, not {value!r}")
        return found[0] if len(found) == 1 else found

    return parse


def padding(value: str) -> Any:
    """Parse the padding of images: 1, HEIGHT,WIDTH, TOP,BOTTOM,LEFT,RIGHT or a word such as same."""
    if value in ("same", "same_lower", "valid"):
        return value
    try:
        found = numbers(1, 2, 4)(value)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            "must be 1, 2 or 4 integers, such as 1 or 0,1,0,1 (top, bottom, left, right), or same, "
            f"same_lower or valid, not {value!r}"
        ) from None
    return (found[:2], found[2:]) if isinstance(found, tuple) and len(found) == 4 else found


def shapes_of(options: argparse.Namespace) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of --shape by input, or None; ValueError if an input has two."""
    names = [name for name, _ in options.shape]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--shape is given twice for the input {name!r}")
    return dict(options.shape) or None


def check_sizes(options: argparse.Namespace, model: Model) -> None:
    """Raise ValueError if --batch is given and no input of a model takes it."""
    if "batch" in options.given:
        check_batch(model, options.batch, shapes_of(options))


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
