"""Check that a tag can be released: ``python .github/release.py v0.1.0``."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What a published page links to: https://packaging.python.org/en/latest/specifications/well-known-project-urls
LINKS = ("Homepage", "Documentation", "Source", "Issues", "Changelog")


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """Return what keeps the checkout in `root` from being released as `tag`.

    Parameters
    ----------
    tag : str
        Such as ``"v0.1.0"``.
    root : Path
        Folder of the checkout.
    """
    (version,) = re.findall(r'__version__ = "(.+)"', (root / "systolic/_version.py").read_text("utf-8"))
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, but systolic/_version.py says {version}: tag v{version}")
    changes = (root / "CHANGELOG.md").read_text("utf-8")
    if not re.search(rf"^## {re.escape(version)} - \d{{4}}-\d{{2}}-\d{{2}}$", changes, flags=re.M):
        found.append(f'CHANGELOG.md has no line "## {version} - YYYY-MM-DD": write the date of the release')
    if f"\nversion: {version}\n" not in (root / "CITATION.cff").read_text("utf-8"):
        found.append(f"CITATION.cff has another version than {version}")
    links = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    absent = [name for name in LINKS if name not in links]
    if absent:
        found.append(f"[project.urls] of pyproject.toml lacks {', '.join(absent)}: add their addresses")
    for name in ("README.md", "docs/index.md"):
        if "not published yet" in (root / name).read_text("utf-8"):
            found.append(f"{name} says that the package is not published yet: write its new install line")
    return found


if __name__ == "__main__":
    wrong = problems(*sys.argv[1:2])
    print("\n".join(wrong) or f"{sys.argv[1]} can be released")
    sys.exit(bool(wrong))
