"""Bugs in modules of this process: a module runs again with another text, and all who use it see that."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def planted(module: ModuleType, old: str, new: str) -> Iterator[None]:
    """Replace one place of a module's text, for the time of a `with`.

    What the module defines is made again in its own namespace, and modules of the package that imported any of
    it get the new one.
    """
    text = inspect.getsource(module)
    assert text.count(old) == 1, f"{module.__name__} has {text.count(old)} times {old!r}"
    package = module.__name__.partition(".")[0]
    users = [user for name, user in list(sys.modules.items()) if name.partition(".")[0] == package]
    before = [(user, dict(vars(user))) for user in users]
    own = dict(vars(module))
    try:
        exec(compile(text.replace(old, new), str(module.__file__), "exec"), vars(module))
        made = {
            id(was): vars(module)[name]
            for name, was in own.items()
            if getattr(was, "__module__", None) == module.__name__ and was is not vars(module)[name]
        }
        assert made
        for user, values in before:
            for name, value in values.items():
                if id(value) in made:
                    setattr(user, name, made[id(value)])
        yield
    finally:
        for user, values in before:
            vars(user).update(values)
