"""Settings of the documentation: ``sphinx-build -n -W docs docs/_build`` needs no network and no installed package."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "servetel_async"
author = "The servetel_async contributors"
copyright = author
release = version = runpy.run_path(str(ROOT / "servetel_async" / "version.py"))["__version__"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True
default_role = "code"  # docstrings of the emulator write `code` with single backticks

html_theme = "furo"
html_title = f"servetel_async {release}"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # an ``Attributes:`` section must not describe a member a second time

# Without intersphinx (the build uses no network) the types of other projects have no page to link to.
# Only names outside this package are listed: a wrong reference to our own names still fails the build.
nitpick_ignore_regex = [
    (r"py:class", r"ArrayStyle|Filters|Moment|TokenProvider"),  # aliases: the parameter's own text spells them out
    (r"py:class", r"-?[\d.e+]+"),  # the bounds of a number, which autodoc takes for a name
    (r"py:class", r"timedelta|tzinfo"),  # stdlib, imported for type checkers only
    (r"py:class", r"servetel_async\.protocol\.records\._Ours"),  # the type of two fields that no JSON may fill
    (r"py:.*", r"(aiohttp|anyio|msgspec|tenacity)\..*"),  # the four dependencies
    (r"py:class", r"servetel_async\.protocol\.windows\.Window"),  # an argument that only the library itself gives
    (r"py:class", r"servetel_async\.protocol\.query\.Params"),  # a list of pairs that does not print
    (r"py:.*", r"(asyncio|collections|contextlib|datetime|enum|os|pathlib|ssl|types|typing|zoneinfo)(\..*)?"),  # stdlib
]


def tidy_docstring(_app: Sphinx, what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Run before napoleon: let Markdown fences pass, and keep prose with a colon from being read as a type."""
    in_fence = False
    tidied: list[str] = []
    for line in lines:
        if line.lstrip().startswith("```"):
            in_fence = not in_fence
            tidied += [line.replace("```", ".. code-block:: ", 1).rstrip(), ""] if in_fence else [""]
        else:
            tidied.append(f"    {line}" if in_fence and line else line)
    # Napoleon takes what stands before a colon in a property's first line for its type: give it an empty comment.
    lines[:] = ["..", "", *tidied] if what in {"attribute", "property"} else tidied


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", tidy_docstring, priority=400)
