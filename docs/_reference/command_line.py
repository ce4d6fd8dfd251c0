"""The page of the shell's commands, from their parser."""

from __future__ import annotations

import argparse
import re

from _reference.markdown import cell, page, table
from systolic.cli.parser import build_parser


def _linked(text: str | None) -> str:
    """Return a help text in which names of pages are links."""
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](../\1)", cell(text or ""))


def _choices(action: argparse.Action) -> str:
    listed = ", ".join(f"`{choice}`" for choice in action.choices or ())
    return f"one of {listed}" if listed and not action.metavar else ""


def _value(action: argparse.Action) -> str:
    """Return how the value of an argument is written; nothing for a flag."""
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    return action.metavar or action.dest.upper().replace("_", "-")


def _row(action: argparse.Action) -> tuple[str, str]:
    """Return how an argument is written, and what it is."""
    value = _value(action)
    if action.option_strings:
        value = f"[{value}]" if value and action.nargs == "?" else value
        written = ", ".join(f"`{option} {value}`".replace(" `", "`") for option in action.option_strings)
    else:
        written = f"`{value}`"
    meaning = "; ".join(filter(None, (_linked(action.help), _choices(action))))
    needed = action.required and action.option_strings
    return cell(written), f"{meaning} (required)" if needed else meaning


def _usage(name: str, parser: argparse.ArgumentParser) -> str:
    words = ["systolic", name]
    for action in parser._actions:
        if not action.option_strings:
            words.append(f"[{_value(action)}]" if action.nargs in ("?", "*") else _value(action))
    for action in parser._actions:
        if action.option_strings and action.required:
            words += [action.option_strings[0], _value(action)]
    return " ".join([*words, "[OPTIONS]"])


def _shown(parser: argparse.ArgumentParser, options: bool) -> list[argparse.Action]:
    hidden = argparse._HelpAction, argparse._SubParsersAction
    return [
        action
        for action in parser._actions
        if bool(action.option_strings) == options
        and not isinstance(action, hidden)
        and action.help != argparse.SUPPRESS
    ]


def text() -> str:
    """Return the page."""
    parser = build_parser()
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    helps = {action.dest: action.help for action in commands._choices_actions}
    shown = {name: command for name, command in commands.choices.items() if name in helps}
    parts = [
        "# Command line",
        "The package installs the command `systolic`; `python -m systolic` is the same command. "
        f"{_linked(parser.epilog)} `systolic COMMAND --help` shows the options of one command.",
        table(("command", "does"), [(f"[`{name}`](#{name})", _linked(helps[name])) for name in shown]),
        table(("without a command", "does"), [_row(action) for action in _shown(parser, True)]),
    ]
    for name, command in shown.items():
        parts += [f"## {name}", _linked(command.description), f"```sh\n{_usage(name, command)}\n```"]
        for title, options in (("argument", False), ("option", True)):
            if found := _shown(command, options):
                parts.append(table((title, "meaning"), map(_row, found)))
        if command.epilog:
            title, _, example = command.epilog.partition(": ")
            parts.append(f"{title.capitalize()}:\n\n```sh\n{example}\n```")
    return page(*parts)
