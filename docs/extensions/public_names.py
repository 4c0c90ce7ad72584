"""The directive `public-names PACKAGE`: everything that a package exports, each name documented once."""

import importlib
import inspect
import sys
import types

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def kind(thing: object) -> str:
    """Which of autodoc's directives documents it."""
    if inspect.isclass(thing):
        return "autoexception" if issubclass(thing, BaseException) else "autoclass"
    return "autofunction" if inspect.isroutine(thing) else "autodata"


def public(module: types.ModuleType) -> list[str]:
    """The names of `__all__`, else the module's own classes, without packages and what the package above exports."""
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__]
    above = sys.modules.get(module.__name__.rpartition(".")[0])
    exported = {id(getattr(above, name)) for name in getattr(above, "__all__", ())}
    found = {name: getattr(module, name) for name in getattr(module, "__all__", own) if not name.startswith("_")}
    return [name for name, thing in found.items() if not inspect.ismodule(thing) and id(thing) not in exported]


class PublicNames(SphinxDirective):
    """Functions and classes of `__all__` in the order of the alphabet, with the members of the classes."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Autodoc's directives, parsed."""
        package = self.arguments[0]
        module = importlib.import_module(package)
        lines = ["```{eval-rst}"]
        for name in sorted(public(module), key=str.lower):
            which = kind(getattr(module, name))
            lines += [f".. {which}:: {package}.{name}"]
            lines += ["   :members:"] if which == "autoclass" else []
            lines += [""]
        found = nodes.section()
        found.document = self.state.document
        self.state.nested_parse(StringList([*lines, "```"], source=package), self.content_offset, found)
        return found.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directive."""
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
