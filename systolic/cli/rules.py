"""Options that would have no effect beside others: errors, before anything is computed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from systolic.cli.options import MACHINE, given_machines, machines_of
from systolic.frontend import is_program
from systolic.workloads.files import SUFFIXES

Options = argparse.Namespace


class Rule(NamedTuple):
    """Options that have no effect under a condition."""

    options: str
    """The ``dest`` of each, with blanks between them."""
    holds: Callable[[Options], Any]
    """Whether the condition holds."""
    why: str
    """What the options are about, and what to do; ends the message."""


def check_effects(options: Options) -> None:
    """Raise ValueError if an option that was given would have no effect; the message says why."""
    for rule in RULES.get(options.command, ()):
        name = next((name for name in rule.options.split() if name in options.given), None)
        if name is not None and rule.holds(options):
            raise ValueError(f"{options.given[name].option} would have no effect: {rule.why}")


def _given(name: str) -> Callable[[Options], bool]:
    return lambda options: name in options.given


def _no_model(options: Options) -> bool:
    return options.model is None


def _program(options: Options) -> bool:
    return options.model is not None and is_program(options.model)


def _no_onnx(options: Options) -> bool:
    named = [options.model] if "model" in options else options.work[:1]
    return any(name is not None and not name.lower().endswith(".onnx") for name in named)


def _several(options: Options) -> bool:
    return len(given_machines(options)) > 1


def _sized(options: Options) -> bool:
    return len(options.work) != 1


def _viewed_program(options: Options) -> bool:
    return not _sized(options) and is_program(options.work[0])


def _timeline(options: Options) -> bool:
    return not _sized(options) and options.layer is None


def names_rows(options: Options) -> bool:
    """Whether ``systolic bench`` measures the rows of one array."""
    return not {"array", "machine", "preset", "m"}.isdisjoint(options.given)


_READ = "qdq compute"
_ARRAY = " ".join(name for name in MACHINE if name != "clock")
_RANDOM = "seed batch shape"
_ONE_CASE = "random cases draw their own arrays and are checked in every mode; name a MODEL"
_HAS_LAYERS = "it is of an .onnx file, and this is none: how its layers run was chosen before"
_HAS_INPUT = "it is of the random input, and --input is given"
_HAS_ALL = "--json prints every node and column"

_FLOATS = Rule(_READ, _no_onnx, _HAS_LAYERS)
_INPUT = Rule(_RANDOM, _given("input"), _HAS_INPUT)
_SIZES = Rule("rows cols", _given("array"), "--array gives both sizes")

RULES: dict[str, tuple[Rule, ...]] = {
    "run": (
        Rule(
            f"input {_RANDOM} {_READ}", _no_model,
            "it goes with a MODEL; without one the bundled quantized network runs on its own images",
        ),
        Rule(
            f"{_READ} batch shape mapping", _program,
            "it is of a model, and MODEL is a program: give it to systolic compile",
        ),
        Rule("no_check", _program, "the outputs of a program are not checked, as it does not know its model"),
        Rule("output_all", _program, "a program has no tensors between layers to write"),
        Rule("ideal", _program, "a program needs the memories that it was compiled for"),
        Rule("output_all", lambda options: options.output is None, "give --output Y.npz too"),
        Rule(
            "ideal", lambda options: all(machine.memory is None for machine in machines_of(options)),
            "this machine has no memories to leave out",
        ),
        Rule("output report", _several, "it is of one machine; leave it out, or give one"),
        _INPUT,
        _FLOATS,
    ),
    "verify": (
        Rule(
            f"input batch shape mode threads node_by_node tolerance {_READ} {_ARRAY}", _no_model,
            _ONE_CASE,
        ),
        Rule("cases case", _given("model"), "it is of random cases: leave it out, or MODEL"),
        Rule("cases", _given("case"), "--case is the only one that is checked"),
        Rule(
            "tolerance", lambda options: options.against != "onnxruntime",
            "every bit must equal the reference's; it goes with --against onnxruntime",
        ),
        _INPUT,
        _FLOATS,
    ),
    "summary": (
        Rule("top all", lambda options: options.json, _HAS_ALL),
        Rule(
            "mapping", lambda options: options.model.lower().endswith(SUFFIXES),
            "it is of the convolutions of a model, and this is a file of products",
        ),
        Rule("top all report", _several, "it is of one machine; leave it out, or give one"),
        _FLOATS,
    ),
    "quantize": (
        Rule(
            "percentile", lambda options: options.method != "percentile",
            "ranges reach the largest value; it goes with --method percentile",
        ),
    ),
    "compile": (_FLOATS,),
    "gemm": (
        Rule("mode threads seed", _given("estimate"), "it is of a run: leave it out, or --estimate"),
    ),
    "view": (
        Rule(
            f"layer input batch shape {_READ}", _sized,
            "it is of a model; the product M K N has random operands",
        ),
        Rule(
            f"layer input cycles {_RANDOM} {_READ}", _viewed_program,
            "it is of a model's layer; a program is shown whole, with its sizes, and holds no numbers",
        ),
        Rule("seed input", _timeline, "a model's timeline does not depend on numbers; it goes with --layer"),
        Rule("cycles", _timeline, "a model's timeline is shown whole; it goes with --layer"),
        _INPUT,
        _FLOATS,
    ),
    "vectors": (
        Rule(
            f"layer input {_RANDOM} {_READ}", _sized,
            "it is of a model's layer, and there are two arrays",
        ),
        Rule(
            "stride padding dilation groups layout x_zero_point", lambda options: not _sized(options),
            "it is of a convolution of two arrays; a model's layer has its own",
        ),
        _SIZES,
        _INPUT,
        _FLOATS,
    ),
    "rtl": (_SIZES,),
    "bench": (
        Rule("extent markdown", names_rows, "--array, --machine, --preset and --m measure other rows"),
        Rule("markdown", lambda options: options.json, "--json prints JSON"),
    ),
}  # fmt: skip
"""What options have no effect beside, by command; the first rule that holds is the message."""
