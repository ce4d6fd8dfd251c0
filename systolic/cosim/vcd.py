"""``read_vcd``: what signals of a simulator's dump held after each edge of the clock."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from systolic import _check, _hints
from systolic._files import path_text


def read_vcd(
    path: str | os.PathLike[str], *, clock: str, signals: Iterable[str] | None = None, edge: str = "rising"
) -> dict[str, list[str]]:
    """Return what signals held after each edge of a clock, from a Value Change Dump (IEEE 1364).

    Parameters
    ----------
    path : path
        The dump.
    clock : str
        The signal whose edges are samples; every name with its scopes, such as ``"bench.dut.clk"``.
    signals : iterable of str, optional
        Signals to return; None: all that have bits and a name of their own. Fewer take less memory.
    edge : {"rising", "falling"}

    Returns
    -------
    dict of str to list of str
        For each signal its bits after each edge, the highest first: ``"0011"``; X and Z stay.

    Raises
    ------
    ValueError
        If a signal is not in the dump, with the nearest name; if it is a real number, or one of several of
        its name, as bits that are dumped one by one are; if the clock is wider than a bit; or if the file is
        damaged, or ends before its values.
    ImportError
        Without pyvcd: ``pip install "systolic[trace]"``.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from systolic import ArrayConfig, SystolicArray
    >>> from systolic.cosim import read_vcd
    >>> array = SystolicArray(ArrayConfig(1, 2), trace=True).step(activation=3).step()
    >>> path = Path(tempfile.mkdtemp()) / "array.vcd"
    >>> array.trace.to_vcd(path)
    >>> read_vcd(path, clock="array.clk", signals=["array.row[0].pe[1].activation"])
    {'array.row[0].pe[1].activation': ['00000000', '00000011']}
    """
    try:
        from vcd.reader import TokenKind, VCDParseError, tokenize
    except ImportError as error:
        raise ImportError('read_vcd needs the pyvcd package: pip install "systolic[trace]"') from error
    _check.choice(edge, "edge", ("rising", "falling"))
    before, after = ("0", "1") if edge == "rising" else ("1", "0")
    if isinstance(signals, str):
        signals = [signals]
    scopes: list[str] = []
    codes: dict[str, str] = {}
    widths: dict[str, int] = {}
    unfit: dict[str, str] = {}
    holds: dict[str, str] = {}
    columns: dict[str, list[str]] = {}
    wanted: dict[str, list[str]] = {}
    tick, rose, defined = "", False, False
    damaged = f"{path_text(path)} is no complete VCD file"

    def sample() -> None:
        for code, column in wanted.items():
            column.append(holds[code])

    try:
        with open(path_text(path), "rb") as file:
            for token in tokenize(file):
                kind = token.kind
                if kind is TokenKind.SCOPE:
                    scopes.append(token.scope.ident)
                elif kind is TokenKind.UPSCOPE:
                    if not scopes:
                        raise ValueError(f"{damaged}: $upscope without a scope")
                    scopes.pop()
                elif kind is TokenKind.VAR:
                    name = ".".join([*scopes, token.var.reference])
                    if codes.setdefault(name, token.var.id_code) != token.var.id_code:
                        unfit[name] = "there are several of this name"
                    if token.var.type_.value in ("real", "realtime"):
                        unfit[name] = "it is a real number"
                    widths[token.var.id_code] = token.var.size
                elif kind is TokenKind.ENDDEFINITIONS:
                    defined = True
                    tick = _code(codes, clock, unfit)
                    if widths[tick] != 1:
                        raise ValueError(f"the clock {clock!r} has {widths[tick]} bits; name a signal of one")
                    names = [name for name in codes if name not in unfit] if signals is None else signals
                    chosen = {name: _code(codes, name, unfit) for name in names}
                    wanted = {code: [] for code in chosen.values()}
                    columns = {name: wanted[code] for name, code in chosen.items()}
                    holds = {code: "x" * widths[code] for code in {tick, *wanted}}
                elif kind is TokenKind.CHANGE_TIME:
                    # Signals that change on the edge do so at its time.
                    if rose:
                        sample()
                    rose = False
                elif kind in (TokenKind.CHANGE_SCALAR, TokenKind.CHANGE_VECTOR):
                    scalar = kind is TokenKind.CHANGE_SCALAR
                    change: Any = token.scalar_change if scalar else token.vector_change
                    code = change.id_code
                    if code in holds:
                        value = _bits(change.value, widths[code])
                        rose = rose or (code == tick and value == after and holds[code] == before)
                        holds[code] = value
    except VCDParseError as error:
        raise ValueError(f"{damaged}: {error}") from None
    if not defined:
        raise ValueError(f"{damaged}: it ends before $enddefinitions")
    if rose:
        sample()
    return columns


def _code(codes: dict[str, str], name: Any, unfit: dict[str, str]) -> str:
    if not isinstance(name, str):
        raise TypeError(f"signals must be named by text, not {_check.kind(name)}")
    if name not in codes:
        raise ValueError(f"the dump has no signal {name!r}; {_hints.nearest(name, tuple(codes))}")
    if name in unfit:
        raise ValueError(f"the signal {name!r} of the dump cannot be read: {unfit[name]}")
    return codes[name]


def _bits(value: Any, width: int) -> str:
    """Return a change as bits of the signal's width; a shorter one is extended as IEEE 1364 says."""
    text = format(value, "b") if isinstance(value, int) else str(value).lower()
    return text.rjust(width, text[0] if text[0] in "xz" else "0")
