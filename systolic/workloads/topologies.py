"""SCALE-Sim's topology files: convolutions or products in a CSV file."""

from __future__ import annotations

import os

from systolic._check import choice
from systolic._files import check_plain, path_text
from systolic._text import printable
from systolic.gemm import Gemm

FORMS = ("conv", "gemm")
_DIGITS = 18
_CONV = ("IFMAP height", "IFMAP width", "filter height", "filter width", "channels", "filters", "stride")
_GEMM = ("M", "N", "K")


def read_topology(
    path: str | os.PathLike[str], form: str | None = None
) -> list[tuple[str, Gemm, int]]:
    """Read a topology file of SCALE-Sim as products with names and counts.

    Parameters
    ----------
    path : path
        A CSV file with a head, one layer a line: ``name, IFMAP height, IFMAP width, filter height, filter
        width, channels, filters, stride`` or ``name, M, N, K``, with or without a comma at the end.
    form : {"conv", "gemm"}, optional
        Default: what the head says.

    Returns
    -------
    list of (str, Gemm, int)
        Name, sizes and count. A convolution is the product of its patches, (height * width, filter height *
        filter width * channels) x (..., filters), for one image. A layer with ``DP`` in its name is
        depthwise: one group a channel. The fifth value of a product is how often it runs.

    Raises
    ------
    ValueError
        If a line has other fields; the message names the line and the field.

    Notes
    -----
    As in SCALE-Sim, the image already has its padding, and a stride that does not fit reads beyond its
    end: there are ``ceil((size - filter + stride) / stride)`` places. Sparsity is refused.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from systolic.workloads import read_topology
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "net.csv"
    >>> _ = file.write_text("Layer, M, N, K,\\nfc, 1, 1000, 2048,\\n")
    >>> read_topology(file)
    [('fc', Gemm(1, 2048, 1000), 1)]
    """
    import csv

    text = path_text(path)
    check_plain(text, "a topology is a CSV file")
    if form is not None:
        choice(form, "form", FORMS)
    layers: list[tuple[str, Gemm, int]] = []
    try:
        with open(text, encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{text} is no CSV file of text: {error}") from None
    head, *body = lines or [[]]
    form = _form(text, head) if form is None else form
    for number, cells in enumerate(body, start=2):
        values = [cell.strip() for cell in cells]
        while values and not values[-1]:
            values.pop()
        if values:
            where = f"{text}, line {number}"
            layers.append(_conv(where, values) if form == "conv" else _gemm(where, values))
    if not layers:
        raise ValueError(f"{text} has no layers below its head")
    return layers


def _form(path: str, head: list[str]) -> str:
    names = [cell.strip().lower() for cell in head if cell.strip()]
    if names[1:4] == ["m", "n", "k"]:
        return "gemm"
    if len(names) >= 8 and "ifmap" in names[1] and "filter" in names[3]:
        return "conv"
    shown = printable(", ".join(cell.strip() for cell in head))[:80]
    raise ValueError(
        f"{path}: the head must be 'Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, "
        f"Channels, Num Filter, Strides' or 'Layer, M, N, K', not {shown!r}"
    )


def _numbers(where: str, values: list[str], names: tuple[str, ...]) -> list[int]:
    if len(values) < 1 + len(names):
        raise ValueError(f"{where}: expected a name and {', '.join(names)}, found {len(values)} values")
    found = []
    for name, value in zip(names, values[1:], strict=False):
        if not (value.isascii() and value.isdigit() and len(value) <= _DIGITS and int(value)):
            raise ValueError(f"{where}: {name} must be a positive integer, not {value[:40]!r}")
        found.append(int(value))
    return found


def _dense(where: str, ratio: str) -> None:
    n, _, m = ratio.partition(":")
    if n.strip() != m.strip():
        raise ValueError(f"{where}: sparsity {ratio[:40]!r} is not modeled; a dense layer has 1:1 or nothing")


def _conv(where: str, values: list[str]) -> tuple[str, Gemm, int]:
    ih, iw, kh, kw, channels, filters, stride = _numbers(where, values, _CONV)
    rest = values[8:]
    across = stride
    if rest and ":" not in rest[0]:
        (across,) = _numbers(where, [values[0], rest.pop(0)], ("stride along the width",))
    if rest:
        _dense(where, rest.pop(0))
    if rest:
        raise ValueError(f"{where}: expected at most 10 values, found {len(values)}")
    for name, size, kernel in (("height", ih, kh), ("width", iw, kw)):
        if kernel > size:
            raise ValueError(f"{where}: the filter's {name} {kernel} is larger than the image's {size}")
    places = -(-(ih - kh + stride) // stride) * -(-(iw - kw + across) // across)
    if "DP" in values[0]:
        return values[0], Gemm(places, kh * kw, filters, groups=channels), 1
    return values[0], Gemm(places, kh * kw * channels, filters), 1


def _gemm(where: str, values: list[str]) -> tuple[str, Gemm, int]:
    m, n, k = _numbers(where, values, _GEMM)
    rest, count = values[4:], 1
    if rest and ":" in rest[0]:
        _dense(where, rest.pop(0))
    if rest:
        (count,) = _numbers(where, [values[0], rest.pop(0)], ("the count",))
    if rest:
        raise ValueError(f"{where}: expected at most 6 values, found {len(values)}")
    return values[0], Gemm(m, k, n), count
