"""``View``: a description as a page, a widget or an iframe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from systolic._files import folder_of, write_file
from systolic.viewer.page import page, source, style
from systolic.viewer.widget import widget_class

MOST_BYTES = 5_000_000
"""Size of a page at most."""

class View:
    """Something to look at: an array and its cycles, or the timeline of a program.

    In a notebook it shows itself: as a widget if `anywidget` is installed (``pip install
    "systolic[notebook]"``), else as a page in a frame. ``array.view()``, ``Trace.view()`` and
    ``Timeline.view()`` make one.

    Parameters
    ----------
    description : mapping
        As ``systolic.viewer.describe_array`` returns it.

    Raises
    ------
    ValueError
        If the page would be larger than 5 MB.

    Examples
    --------
    >>> import numpy as np
    >>> from systolic import ArrayConfig, SystolicArray
    >>> array = SystolicArray(ArrayConfig(2, 3))
    >>> view = array.fold(w=np.int8([[7, -8, 9], [10, 11, -12]]), x=np.int8([[1, 2], [3, 4]])).view()
    >>> view
    <View of 2 x 3 systolic array: cycles 0 to 8>
    >>> view.html()[:15]
    '<!doctype html>'
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        import json

        self.description = dict(description)
        self._data = json.dumps(self.description, separators=(",", ":"), allow_nan=False)
        size = len(self._data) + len(source()) + len(style())
        if size > MOST_BYTES:
            raise ValueError(
                f"the page would have {size / 1e6:.1f} MB, more than the {MOST_BYTES / 1e6:g} MB that a page "
                "may have; show fewer cycles, such as view(cycles=1000), or a smaller array"
            )

    def html(self) -> str:
        """Return the page: one file that needs nothing else, no network either."""
        return page(self.description["title"], self._data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, which is complete or absent.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        folder_of(path)
        write_file(path, lambda file: file.write(self.html()), "w", encoding="utf-8", newline="\n")

    def widget(self) -> Any:
        """Return an ipywidget that shows the same; its `cycle` is the cycle shown, and can be set.

        Raises
        ------
        ImportError
            If anywidget is missing: ``pip install "systolic[notebook]"``.
        """
        return widget_class()(description=self.description, cycle=self.description["first_cycle"])

    def _repr_mimebundle_(self, **options: Any) -> Any:
        try:
            return self.widget()._repr_mimebundle_(**options)
        except ImportError:
            import html

            style = "width: 100%; height: 720px; border: 0"
            frame = f'<iframe srcdoc="{html.escape(self.html())}" style="{style}"></iframe>'
            return {"text/html": frame, "text/plain": repr(self)}

    def __repr__(self) -> str:
        d = self.description
        return f"<View of {d['title']}: cycles {d['first_cycle']} to {d['first_cycle'] + d['cycles']}>"
