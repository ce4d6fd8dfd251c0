"""Suffixes for error messages: what to do if an argument fits with permuted axes; which name is meant."""

from __future__ import annotations

from collections.abc import Sequence

Sizes = Sequence[int | None]

_MOST_LISTED = 20
"""Names in a message."""

# From other layouts of a convolution's weight: TensorFlow and JAX (kh, kw, ic, oc), TensorFlow Lite
# (oc, kh, kw, ic), transposed convolutions (ic, oc, kh, kw).
_CONV_WEIGHTS = ((3, 2, 0, 1), (0, 3, 1, 2), (1, 0, 2, 3))


def meant(name: object, known: Sequence[str]) -> str:
    """Return which known name is meant, in whatever case, as the end of a message; empty if none is near.

    Examples
    --------
    >>> from systolic._hints import meant
    >>> meant("conv_1", ["Conv1", "Gemm"]), meant("softmax", ["Conv1", "Gemm"])
    ("did you mean 'Conv1'?", '')
    """
    from difflib import get_close_matches

    lower = {each.lower(): each for each in known}
    close = get_close_matches(str(name).lower(), lower, 1)
    return f"did you mean {lower[close[0]]!r}?" if close else ""


def nearest(name: object, known: Sequence[str], listed: str = "known are") -> str:
    """Return which known name is meant, as :func:`meant` does; if none is near, the first of them.

    `listed` comes before several names.

    Examples
    --------
    >>> from systolic._hints import nearest
    >>> nearest("conv_1", ["Conv1", "Gemm"]), nearest("softmax", ["Conv1", "Gemm"])
    ("did you mean 'Conv1'?", 'known are Conv1, Gemm')
    """
    more = f" and {len(known) - _MOST_LISTED:,} more" if len(known) > _MOST_LISTED else ""
    return meant(name, known) or f"{listed} {', '.join(known[:_MOST_LISTED])}{more}"


def other_axis(shape: Sizes, count: int) -> str:
    """Return which axis parameters per channel would fit, as a suffix for an error message.

    Examples
    --------
    >>> from systolic._hints import other_axis
    >>> other_axis((525, 3), 525)
    '; they fit axis=0'
    """
    axes = [str(axis) for axis, size in enumerate(shape) if size == count]
    return f"; they fit axis={' or axis='.join(axes)}" if axes else ""


def other_order(name: str, shape: Sequence[int], wanted: Sizes) -> str:
    """Return how to permute an array to a wanted shape (None: any size), as a suffix for an error message.

    Examples
    --------
    >>> from systolic._hints import other_order
    >>> other_order("x", (1, 8, 6, 3), (None, 3, 8, 6))
    '; x.transpose(0, 3, 1, 2) fits, if x is channels last (NHWC)'
    """
    rank = len(shape)
    if rank + 1 == len(wanted) and wanted[0] in (1, None) and _fits(shape, wanted[1:]):
        return f"; {name}[None] fits, a batch of one"
    if rank != len(wanted) or rank < 2:
        return ""
    if rank == 2:
        return f"; {name}.T fits" if _fits(shape[::-1], wanted) else ""
    spatial = "DHW"[-(rank - 2) :] if rank < 6 else "..."
    orders = (
        ((0, rank - 1, *range(1, rank - 1)), f"channels last (N{spatial}C)"),
        ((0, *range(2, rank), 1), f"channels first (NC{spatial})"),
    )
    for order, what in orders:
        if _fits([shape[axis] for axis in order], wanted):
            return f"; {name}.transpose({', '.join(map(str, order))}) fits, if {name} is {what}"
    return ""


def other_product(x: Sequence[int], w: Sequence[int], names: str = "xw") -> str:
    """Return a hint for two matrices that do not share K: which transpose fits.

    Suffix for an error message.
    """
    if len(x) < 1 or len(w) != 2:
        return ""
    if x[-1] == w[1]:
        return f"; {names[1]}.T fits"
    return f"; {names[0]}.T fits" if len(x) == 2 and x[0] == w[0] else ""


def other_images(x: Sequence[int], w: Sequence[int], groups: int, layout: str = "NCHW") -> str:
    """Return a hint for images x and a weight w whose channels differ: which transpose fits.

    Suffix for an error message.
    """
    rank = len(x)
    if rank != len(w) or rank < 3:
        return ""
    last = layout == "NHWC"
    if x[1 if last else rank - 1] == w[1] * groups:
        order = (0, *range(2, rank), 1) if last else (0, rank - 1, *range(1, rank - 1))
        now = "channels first (NCHW)" if last else "channels last (NHWC)"
        return f"; x.transpose({', '.join(map(str, order))}) fits, if x is {now if rank == 4 else now[:-7]}"
    channels = x[rank - 1 if last else 1]
    for order in _CONV_WEIGHTS if rank == 4 else ():
        oc, ic = w[order[0]], w[order[1]]
        if channels == ic * groups and oc % groups == 0:
            return f"; w.transpose({', '.join(map(str, order))}) fits, if w is in another layout"
    return ""


def _fits(shape: Sequence[int], wanted: Sizes) -> bool:
    return len(shape) == len(wanted) and all(
        want is None or have == want for have, want in zip(shape, wanted, strict=True)
    )
