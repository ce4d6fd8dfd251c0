"""Write the list of differences from ONNX Runtime into docs/onnx.md: python docs/write_differences.py"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from systolic.layers.differences import DIFFERENCES

PAGE = Path(__file__).with_name("onnx.md")
BEGIN, END = "<!-- begin differences: docs/write_differences.py writes this -->", "<!-- end differences -->"


def section() -> str:
    """Return the list as Markdown, between its two marks."""
    rows = [
        textwrap.fill(f"- **{name}**: {reason}", 110, subsequent_indent="  ", break_on_hyphens=False)
        for name, reason in DIFFERENCES.items()
    ]
    return "\n".join([BEGIN, "", *rows, "", END])


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: section(), text, flags=re.S), encoding="utf-8")
