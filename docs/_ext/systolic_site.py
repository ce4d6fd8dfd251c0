"""Links of the site to files of the repository and from names in the text to the reference; tidying."""

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
# `MachineConfig`, `load_onnx`; not `run` or `verify`, which are also words and commands.
SHORT = re.compile(r"([A-Z]+[a-z]\w*|[a-z]+_[a-z_]+)(\(.*\))?")


class Tidied(SphinxTransform):
    """Adapt to the site what is written for GitHub and doctest."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        for block in self.document.findall(nodes.literal_block):
            # Doctest needs an empty line before the fence.
            if isinstance(block, nodes.literal_block) and len(block.children) == 1:
                text = block.astext().rstrip("\n")
                block.children[:] = []
                block.rawsource = text
                block += nodes.Text(text)
        for link in self.document.findall(addnodes.pending_xref):
            # [onnx.md](onnx.md): the site shows the page's title.
            page = f"{link['reftarget']}.md".rpartition("/")[2]
            if link.get("refdomain") == "doc" and link.astext() == page:
                link["refexplicit"] = False


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
        seen = set()  # one link to a name in each section; tables have all
        for node in list(self.document.findall(nodes.literal)):
            if _above(node, nodes.reference, nodes.title, addnodes.pending_xref, addnodes.desc) is not None:
                continue
            names = _names(node.astext())
            name = next((name for name in names if name in objects), None)
            if name is None:
                continue
            place = _above(node, nodes.entry, nodes.section)
            if (id(place), name) in seen:
                continue
            seen.add((id(place), name))
            entry = objects[name]
            here = self.env.docname
            node.replace_self(
                make_refnode(self.app.builder, here, entry.docname, entry.node_id, node.deepcopy(), name)
            )


def _names(text: str) -> list[str]:
    """Return the entries of the reference that a literal may mean."""
    if match := NAME.fullmatch(text):
        return [match[1]]
    match = SHORT.fullmatch(text)
    return [f"{module}.{match[1]}" for module in ("systolic", "systolic.layers")] if match else []


def _above(node: nodes.Node, *kinds: type[nodes.Node]) -> nodes.Node | None:
    """Return the nearest node around one that is of one of these kinds."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return node
    return None


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
    app.add_transform(Tidied)
    app.add_transform(OutsideLinks)
    app.add_post_transform(LiteralLinks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
