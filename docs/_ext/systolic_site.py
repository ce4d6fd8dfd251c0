"""Links of the site: to files of the repository, and from names in the text to the reference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

NAME = re.compile(r"(systolic(?:\.\w+)+)(\(.*\))?")


class OutsideLinks(SphinxTransform):
    """Links to files beside docs/ become links to the repository, or their text where it has no address."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        source = Path(self.env.srcdir).resolve()
        folder = Path(self.env.doc2path(self.env.docname)).resolve().parent
        kinds = addnodes.pending_xref, addnodes.download_reference
        for node in [node for kind in kinds for node in self.document.findall(kind)]:
            if node.get("reftype") != "myst":
                continue
            target = str(node["reftarget"])
            if node.get("refdomain") == "doc":  # a page's name, relative to the sources
                path = (source / f"{target}.md").resolve()
            else:
                path = (folder / target.partition("#")[0]).resolve()
            if path.is_relative_to(source) or not path.exists():
                continue
            inside = path.relative_to(source.parent).as_posix()
            new: nodes.Element
            if self.config.repository_url:
                kind = "tree" if path.is_dir() else "blob"
                new = nodes.reference("", "", refuri=f"{self.config.repository_url}/{kind}/main/{inside}")
            else:
                new = nodes.inline("", "", classes=["repository-file"])
            new += node.children
            node.replace_self(new)


class LiteralLinks(SphinxPostTransform):
    """``systolic.matmul`` in the text becomes a link if the reference has an entry of that name."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        objects = self.env.domains.python_domain.objects
        for node in list(self.document.findall(nodes.literal)):
            match = NAME.fullmatch(node.astext())
            entry = objects.get(match[1]) if match else None
            if entry is None or _inside(node, nodes.reference, nodes.title, addnodes.pending_xref):
                continue
            link = make_refnode(
                self.app.builder, self.env.docname, entry.docname, entry.node_id, node.deepcopy(), match[1]
            )
            node.replace_self(link)


def _inside(node: nodes.Node, *kinds: type[nodes.Node]) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def remove_stale(app: Sphinx) -> None:
    """Remove stubs of names that the pages of the reference list no more."""
    folder = Path(app.srcdir, "reference", "api")
    listed: set[str] = set()
    for page in folder.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for module, names in re.findall(r"^\.\. currentmodule:: (\S+)\n(.*?)^```", text, flags=re.S | re.M):
            listed |= {f"{module}.{name}" for name in re.findall(r"^   (\w+)$", names, flags=re.M)}
    for stub in folder.glob("generated/*.rst"):
        if stub.stem not in listed:
            stub.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("repository_url", "", "env", str)
    app.connect("builder-inited", remove_stale, priority=400)  # before autosummary writes stubs
    app.add_transform(OutsideLinks)
    app.add_post_transform(LiteralLinks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
