"""How the documentation is built: `make docs`. Nothing is fetched from a network, and every warning is an error."""

import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project = "landscape-engine"
author = "the authors of landscape-engine"
copyright = "the authors of landscape-engine"
try:
    release = importlib.metadata.version(project)
except importlib.metadata.PackageNotFoundError:  # not installed: the sources are on the path
    release = "of the sources"

extensions = ["myst_nb", "sphinx.ext.autodoc", "plain_docstrings", "public_names"]
exclude_patterns = ["extensions"]
html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sphinx = False

# Anchors of headings as a code host makes them, so that one link works in both places.
myst_heading_anchors = 4

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 100
# the trainers' callbacks are documented whether or not the trainers are installed
autodoc_mock_imports = ["lightning", "pytorch_lightning", "transformers"]

nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_merge_streams = True
