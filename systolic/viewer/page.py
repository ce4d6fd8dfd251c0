"""The viewer's page: style sheet, script and description in one file."""

from __future__ import annotations

from functools import cache

_SCRIPTS = ("engine.js", "array.js", "timeline.js", "viewer.js")

# Nothing is loaded: not by the page, and not by what a title or a name might say.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body class="systolic-page">
<main id="viewer"></main>
<script type="application/json" id="description">{data}</script>
<script type="module">
{script}
const description = JSON.parse(document.getElementById("description").textContent);
open(document.getElementById("viewer"), description, {{ page: true }});
</script>
</body>
</html>
"""


def page(title: str, data: str) -> str:
    """Return the page that shows a description, given as JSON."""
    import html

    return _PAGE.format(
        policy=_POLICY,
        title=html.escape(title),
        style=style(),
        data=data.replace("<", "\\u003c"),
        script=source(),
    )


@cache
def source() -> str:
    """Return the viewer's JavaScript: one module, which exports `render` as anywidget wants it."""
    return "\n".join(_static(name) for name in _SCRIPTS)


@cache
def style() -> str:
    """Return the viewer's style sheet."""
    return _static("viewer.css")


def _static(name: str) -> str:
    from importlib import resources

    return resources.files("systolic.viewer").joinpath("static", name).read_text(encoding="utf-8")
