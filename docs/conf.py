"""How `make docs` builds the site: every page is executed, and the site loads nothing from the network."""

import hashlib
import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS))

from pellucid import __version__ as release  # noqa: E402, F401

project = "pellucid"
author = "the pellucid founders"
copyright = author
extensions = [
    "myst_nb",
    "mathml",
    "docstrings",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]

html_theme = "furo"
html_title = "pellucid"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3

default_role = "py:obj"
add_module_names = False
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
python_maximum_signature_line_length = 90
napoleon_use_ivar = True
napoleon_numpy_docstring = False


def source_digest() -> str:
    """Of the package: outputs are kept for as long as the code that made them."""
    digest = hashlib.sha256()
    for file in sorted((ROOT / "src").rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


OUTPUTS = ROOT / "build" / "docs" / source_digest()
FILES = OUTPUTS / "files"  # what pages write for the site
PROFILE = OUTPUTS / "ipython" / "profile_default"
for folder in (FILES, PROFILE):
    folder.mkdir(parents=True, exist_ok=True)
# Kernels of the pages: figures as SVG, their images sharp on fine screens.
(PROFILE / "ipython_kernel_config.py").write_text(
    'c.InlineBackend.figure_formats = {"svg"}\n'
    'c.InlineBackend.rc = {"figure.dpi": 144, "savefig.dpi": 144, "svg.hashsalt": "pellucid"}\n'
    "c.HistoryManager.enabled = False\n"
    "c.IPKernelApp.log_level = 40\n"
)
COMMANDS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ |= {
    "PATH": COMMANDS,
    "IPYTHONDIR": str(PROFILE.parent),
    "SITE_FILES": str(FILES),
    "OMP_WAIT_POLICY": "passive",
}

html_extra_path = [str(FILES)]
exclude_patterns = ["images", "static"]
nb_execution_mode = "cache"
nb_execution_cache_path = str(OUTPUTS / "cells")
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # its widgets would come from a server
nb_merge_streams = True


def setup(app):
    """Put the figures that MyST-NB writes beside the site's other by-products instead of into the repository."""

    def place(app):
        app.env.mystnb_config = app.env.mystnb_config.copy(output_folder=str(ROOT / "build" / "docs" / "figures"))

    app.connect("builder-inited", place, priority=900)
