"""Configuration of the documentation site.

Build it with ``pip install -e ".[docs]"`` and ``python -m sphinx -W --keep-going -b html docs build/site``.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import systolic  # noqa: E402

project = "systolic"
author = "systolic developers"
copyright = author
version = release = systolic.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "systolic_site",
]
root_doc = "index"
exclude_patterns = ["_ext", "_reference", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
nitpicky = True
# Types that a signature names and no page describes: those of numpy, the standard library and private ones.
# The site is built without a network, so that other projects' inventories are not asked.
nitpick_ignore_regex = [(r"py:(class|obj|exc|meth|func|data|attr|mod)", r"(?!systolic).*")]

# Pages are read on GitHub, too: fences and links as there.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

# Tutorials run when the site is built; an error or a warning in one fails the build.
nb_execution_mode = os.environ.get("SYSTOLIC_DOCS_EXECUTE", "force")
nb_execution_timeout = 120
nb_execution_in_temp = True  # some write files
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

# Named here: Sphinx would take the pages of its last run.
autosummary_generate = sorted(str(page.relative_to(HERE)) for page in HERE.glob("reference/api/*.md"))
autodoc_member_order = "groupwise"
autodoc_typehints = "none"  # docstrings have them, with shapes
autodoc_default_options = {"members": True}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

smartquotes = False  # types such as {"cycle", "wavefront"}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Links to files that are not pages lead to the repository where its address is known, as it is on GitHub.
_server, _repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
repository_url = f"{_server}/{_repository}" if _server and _repository else ""

html_theme = "pydata_sphinx_theme"
html_title = f"systolic {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/mark.svg"
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": [], "faq": [], "glossary": []}
html_theme_options = {
    "logo": {"text": "systolic", "image_light": "_static/mark.svg", "image_dark": "_static/mark.svg"},
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    # Else each page lists all of the reference beside it, and building takes half as long again.
    "collapse_navigation": True,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    # A table of ten columns needs the space.
    "secondary_sidebar_items": {"**": ["page-toc"], "operators": []},
    "pygments_light_style": "a11y-light",
    "pygments_dark_style": "a11y-dark",
    **(
        {"icon_links": [{"name": "Source", "url": repository_url, "icon": "fa-brands fa-github"}]}
        if repository_url
        else {}
    ),
}
