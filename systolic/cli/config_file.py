"""The file of --config: options of a command as fields of YAML, JSON or TOML."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from systolic import _hints, _plain
from systolic._check import kind
from systolic._files import check_plain


class Field(NamedTuple):
    """An option in a file."""

    name: str
    """The long name of the option, without dashes."""
    words: list[list[str]]
    """The words of each time that the option is given: none or one."""
    where: str
    """File and field, for messages."""


def config_path(args: Sequence[str]) -> str | None:
    """Return the file that --config names among a command's arguments."""
    found = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    found.add_argument("--config")
    try:
        return found.parse_known_args(list(args))[0].config
    except argparse.ArgumentError:  # --config without a file: the command's parser says so
        return None


def read_config(path: str, known: Mapping[str | None, argparse.Action]) -> list[Field]:
    """Return the fields of a file, each the long name of an option.

    Parameters
    ----------
    path : str
        A .yaml, .yml, .json or .toml file.
    known : mapping of str to Action
        The command's options by long name, with its dashes.

    Raises
    ------
    ValueError
        If a field is no option, with the nearest that is one, or has a value that no option takes.
    """
    check_plain(path, "--config takes a file of YAML, JSON or TOML")
    found = _plain.load(path, "a file of options", (".toml",))
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: a file of options must be fields with values, not {kind(found)}")
    fields = []
    for name, value in found.items():
        where = f"{path}: field {str(name)!r}"
        action = known.get(f"--{name}")
        if action is None:
            options = [option.removeprefix("--") for option in known if option is not None]
            raise ValueError(f"{where}: there is no option of this name; {_hints.nearest(name, options)}")
        if words := _words(where, action, value):
            fields.append(Field(name, words, where))
    return fields


def _words(where: str, action: argparse.Action, value: Any) -> list[list[str]]:
    """Return the words of an option each time it is given; none for an option that is false."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"{where}: must be true or false, not {kind(value)}")
        return [[]] if value else []
    if isinstance(value, list) and isinstance(action, argparse._AppendAction):
        return [[_word(where, each)] for each in value]
    if isinstance(value, bool) and action.nargs == "?":
        return [[]] if value else []
    return [[_word(where, value)]]


def _word(where: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{where}: must be a number or a text, not {kind(value)}")
    if value == "--":  # which argparse takes for the end of the options
        raise ValueError(f"{where}: must be a value of the option, not '--'")
    return str(value)
