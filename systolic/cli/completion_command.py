"""``systolic completion``: a script that completes commands, options, choices and file names."""

from __future__ import annotations

import argparse
from typing import Any

from systolic.cli.data import print_json

SHELLS = ("bash", "zsh", "fish")


def completion_command(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    script = completion_script(options.whole, options.shell)
    if options.json:
        print_json({"shell": options.shell, "script": script})
    else:
        print(script)
    return 0


def completion_script(parser: Any, shell: str) -> str:
    """Return what a shell runs to complete the words of ``systolic``.

    Parameters
    ----------
    parser : Parser
        Of all commands.
    shell : {"bash", "zsh", "fish"}

    Raises
    ------
    ImportError
        If shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise ImportError(
            'completion needs shtab: pip install "systolic[completion]"; the script itself needs nothing'
        ) from error
    for command in parser.commands.values():
        for action in command._actions:
            if getattr(action, "reads", False) or getattr(action, "writes", None):
                action.complete = shtab.FILE
    return shtab.complete(parser, shell)
