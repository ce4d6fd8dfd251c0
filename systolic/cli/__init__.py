"""The ``systolic`` command: parse, call, print.

Exit status: 0 for success, 1 when a check fails, 2 for bad usage or unreadable or unsupported
input, 130 on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from systolic._text import printable
from systolic.cli.parser import build_parser
from systolic.cli.rules import check_effects
from systolic.cli.targets import check_targets


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        # Table rules and dashes must not fail on a stream that cannot encode them.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        parser = build_parser()
        options, unknown = parser.parse_known_args(arguments)
        if unknown:
            parser.refuse(options.command, unknown)
        if options.command is None:
            parser.print_help(sys.stderr)
            return 2
    except SystemExit:  # --help, --version and bad usage
        with contextlib.suppress(BrokenPipeError):
            _written(sys.stdout)
        raise
    try:
        check_effects(options)
        check_targets(options)
        status = options.call(options)
        # Flush here, where an error can be handled.
        _written(sys.stdout)
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has closed the pipe
        return 0
    except (ValueError, TypeError, OSError, ImportError, MemoryError, RuntimeError) as error:
        print(f"systolic {options.command}: {printable(str(error))}", file=sys.stderr)
        return 2


def _written(stream: Any) -> None:
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        # Keep Python from flushing again, and printing an error, at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise
