"""A parser that says what was probably meant, reads --config, and keeps the words of what was given."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from systolic import _hints
from systolic.cli.config_file import Field, config_path, read_config

WriteCheck = Callable[[str], None]
"""Called with a path: raises an error if it cannot be written."""


class Given(NamedTuple):
    """An option or argument in the words of the user."""

    option: str | None
    """The option's long name; None for an argument without one, such as MODEL."""
    words: tuple[str, ...]
    """Its values; empty for an option that takes none."""


class Parser(argparse.ArgumentParser):
    """A parser of a command's options, from the command line and from the file of --config.

    What it returns has, beside a value for each option, `given`: the :class:`Given` words of every option and
    argument that the user has given, by its ``dest``. A default is not in it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._given: dict[str, Given] = {}

    def add_argument(  # type: ignore[override]
        self, *names: str, reads: bool = False, writes: WriteCheck | None = None, **fields: Any
    ) -> argparse.Action:
        """Add an option or argument.

        Parameters
        ----------
        reads : bool
            Whether it names a file that is read.
        writes : callable, optional
            For what names a file or folder that is written: raises an error if that cannot be, before
            anything is computed.
        *names, **fields
            As for :meth:`argparse.ArgumentParser.add_argument`.
        """
        return mark(super().add_argument(*names, **fields), reads, writes)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        args = list(sys.argv[1:] if args is None else args)
        namespace = argparse.Namespace() if namespace is None else namespace
        self._given = {}
        options = [action for action in self._actions if action.option_strings and _is_stored(action)]
        for action in options:
            # What is still None in the end was not given: None is no option's value.
            setattr(namespace, action.dest, None)
        fields = self._read_config(args)
        required = [action for action in fields if action.required]
        for action in required:
            action.required = False
        try:
            found, unknown = super().parse_known_args(args, namespace)
        finally:
            for action in required:
                action.required = True
        self._add_fields(found, fields)
        for action in options:
            if getattr(found, action.dest) is None:
                setattr(found, action.dest, action.default)
        if "given" not in found:  # a command's own, which the parser of all commands keeps
            found.given = self._given
        return found, unknown

    def _get_values(self, action: argparse.Action, arg_strings: Sequence[str]) -> Any:
        words = list(arg_strings)
        value = super()._get_values(action, words)  # type: ignore[misc]
        if isinstance(action, argparse._SubParsersAction):
            return value
        option = long_name(action)
        before = self._given.get(action.dest)
        if option is not None and before is not None and words and not repeats(action):
            raise argparse.ArgumentError(action, "is given twice")
        if option is not None or words:
            kept = before.words if before is not None and repeats(action) else ()
            self._given[action.dest] = Given(option, (*kept, *(word for word in words if word != "--")))
        return value

    def _read_config(self, args: Sequence[str]) -> dict[argparse.Action, Field]:
        """Return the fields of the file of --config, by the option that each is."""
        path = config_path(args) if "--config" in self._option_string_actions else None
        if path is None:
            return {}
        known = {long_name(action): action for action in self._actions if _is_stored(action)}
        known = {name: action for name, action in known.items() if name not in (None, "--config")}
        try:
            fields = read_config(path, known)
        except (OSError, ValueError, TypeError, ImportError) as error:
            self.error(str(error))
        return {known[f"--{field.name}"]: field for field in fields}

    def _add_fields(self, found: argparse.Namespace, fields: dict[argparse.Action, Field]) -> None:
        """Take the fields whose option, or one that excludes it, is not in the command line."""
        typed = set(self._given)
        taken: dict[argparse.Action, str] = {}
        for action, field in fields.items():
            beside = [group._group_actions for group in self._mutually_exclusive_groups]
            rivals = [action, *(a for group in beside if action in group for a in group)]
            if typed & {rival.dest for rival in rivals}:
                continue
            # Options such as --quick and --full have one dest.
            other = next((taken[rival] for rival in rivals if rival in taken), None)
            if other is not None:
                self.error(f"{field.where}: not allowed with the field {other!r}")
            taken[action] = field.name
            try:
                for words in field.words:
                    action(self, found, self._get_values(action, words), f"--{field.name}")
            except argparse.ArgumentError as error:
                self.error(f"{field.where}: {error.message}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            hint = _hints.meant(value, [str(choice) for choice in action.choices or ()])
            raise argparse.ArgumentError(action, f"{error.message}{hint and f'; {hint}'}") from None

    def refuse(self, command: str | None, unknown: Sequence[str]) -> NoReturn:
        """Exit with an error about arguments that `command` does not take."""
        parser: Parser = self if command is None else self.commands[command]
        names = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        hint = _hints.meant(names[0], list(parser._option_string_actions)) if names else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint and f'; {hint}'}")

    @property
    def commands(self) -> dict[str, Parser]:
        """The commands' own parsers, by name."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return dict(action.choices)
        return {}


def mark(action: argparse.Action, reads: bool = False, writes: WriteCheck | None = None) -> argparse.Action:
    """Return an option or argument, marked as the name of what is read or written."""
    action.reads, action.writes = reads, writes  # type: ignore[attr-defined]
    return action


def long_name(action: argparse.Action) -> str | None:
    """Return the long name of an option; None for an argument without one."""
    return next((name for name in action.option_strings if name.startswith("--")), None)


def repeats(action: argparse.Action) -> bool:
    """Whether an option may be given several times."""
    return isinstance(action, argparse._AppendAction)


def _is_stored(action: argparse.Action) -> bool:
    """Whether an option or argument has a value: --help and --version have none."""
    return argparse.SUPPRESS not in (action.dest, action.default)


# What changes only how results are shown or where they are written.
_SHOWN = ("config", "json", "quiet", "output", "output_all", "report")


def command_again(options: argparse.Namespace) -> str:
    """Return the shell command that makes the same checks again: every option that changes results."""
    arguments: list[str] = []
    named: list[str] = []
    for dest, given in options.given.items():
        if dest in _SHOWN:
            continue
        if given.option is None:
            arguments += given.words
        elif not given.words:
            named.append(given.option)
        for word in given.words if given.option is not None else ():
            # A value may begin with a dash.
            named += [f"{given.option}={word}"] if word.startswith("-") else [given.option, word]
    dashed = any(word.startswith("-") for word in arguments)
    words = [*named, "--", *arguments] if dashed else [*arguments, *named]
    return shlex.join(["systolic", options.command, *words])
