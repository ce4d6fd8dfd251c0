"""The viewer as a widget for notebooks."""

from __future__ import annotations

from functools import cache
from typing import Any

from systolic.viewer.page import source, style


@cache
def widget_class() -> Any:
    """Return the class of the widget; ImportError if anywidget is missing."""
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise ImportError('the widget needs anywidget: pip install "systolic[notebook]"') from error

    class ViewerWidget(anywidget.AnyWidget):  # type: ignore[misc]
        """Shows a description; `cycle` is the cycle shown."""

        _esm = source()
        _css = style()
        description = traitlets.Dict().tag(sync=True)
        cycle = traitlets.Int(0).tag(sync=True)

    return ViewerWidget
