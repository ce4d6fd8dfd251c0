"""What commands write, checked before anything is computed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from systolic._files import check_folder, check_target
from systolic._show.report import check_path
from systolic.sweeps.files import check_rows

QUANTIZED = (".onnx", ".zip")
"""Suffixes of what ``systolic quantize`` writes."""


def check_targets(options: argparse.Namespace) -> None:
    """Raise ValueError if an option names something that cannot be written, or that another one names.

    Parameters
    ----------
    options : Namespace
        As the parser returns them.
    """
    named: dict[str, str] = {}
    for action in options.parser._actions:
        given = options.given.get(action.dest)
        if getattr(action, "reads", False) and given is not None:
            name = given.option or action.metavar or action.dest
            named |= {_place(word): name for word in given.words if os.path.exists(word)}
    for action in options.parser._actions:
        check, path = getattr(action, "writes", None), getattr(options, action.dest, None)
        if check is None or path is None:
            continue
        option = action.option_strings[-1]
        try:
            check(path)
        except (OSError, ValueError, TypeError, ImportError) as error:
            raise ValueError(f"{option}: {error}") from None
        before = named.setdefault(_place(path), option)
        if before != option:
            raise ValueError(f"{option} {path} is also the file of {before}; name another file")


def _place(path: str) -> str:
    return os.path.realpath(path)


def file(path: str) -> None:
    """Check a file of any suffix."""
    check_target(path)


def report(path: str) -> None:
    """Check the file of a report, whose suffix says its format."""
    check_target(path)
    check_path(path)


def quantized(path: str) -> None:
    """Check the file of a quantized model, whose suffix says its format."""
    suffix = Path(path).suffix.lower()
    if suffix not in QUANTIZED:
        raise ValueError(f"{path} must end in .onnx, or in .zip, which Model.save writes, not {suffix!r}")
    check_target(path)


def folder(path: str) -> None:
    """Check a folder that is not there yet."""
    check_folder(path)


def rows(path: str) -> None:
    """Check a file that rows are appended to."""
    check_rows(path)
