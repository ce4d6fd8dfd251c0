"""Text: invisible characters escaped, as names may hold terminal commands; moments; JSON in one form."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def printable(text: str) -> str:
    """Return a text with control, format and other invisible characters written as Python's escapes.

    Examples
    --------
    >>> from systolic._text import printable
    >>> print(printable("a\\x1b[31m" + chr(0x202E) + "b"))
    a\\x1b[31m\\u202eb
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def moment(edges: int) -> str:
    """Return in words when an array has done so many clock edges: every title and message says it this way.

    Examples
    --------
    >>> from systolic._text import moment
    >>> moment(0), moment(4)
    ('before the first edge', 'after the edge of cycle 3')
    """
    return f"after the edge of cycle {edges - 1:,}" if edges else "before the first edge"


def canonical(value: Any) -> str:
    """Return JSON without spaces and with sorted keys: equal values have equal text."""
    import json

    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(text: str) -> str:
    """Return the SHA-256 of a text, in hexadecimal."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


# Packages whose exceptions may quote a file.
_RAISERS = ("builtins", "google", "numpy", "onnx", "onnxruntime", "systolic")


def printable_errors(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Escape invisible characters in the messages of errors that a function raises."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except AssertionError:
            raise  # a report of several lines, each of them printable
        except Exception as error:
            found: BaseException | None = error
            seen: set[int] = set()
            # A traceback shows the causes too, and an error may be its own.
            while found is not None and id(found) not in seen:
                seen.add(id(found))
                # A KeyError shows the repr of its text; a report is printable, line by line; a caller's own
                # exceptions are not ours to change.
                ours = type(found).__module__.partition(".")[0] in _RAISERS
                if ours and not isinstance(found, KeyError | AssertionError):
                    found.args = tuple(printable(a) if isinstance(a, str) else a for a in found.args)
                found = found.__cause__ or found.__context__
            raise

    return call
