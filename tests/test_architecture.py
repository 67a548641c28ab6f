"""The house's rules, held by ``ast``: who imports whom, and who touches the world.

Each rule is a function from a module (its path below ``ocidist/`` and its source) to sentences about what breaks
it; the tests run it on the tree, and on small planted violations, so that a rule that can't fail is noticed.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Callable, Iterator

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "ocidist"

# Top down: a unit imports only from units above it, and from itself.
TOP_DOWN = """
frozen redaction errors files settings spec progress view rows limits scope terminal net content images remotes graph trees layers
snapshots stores rootfs runtime explore build documents image transfer server client repair diagnosis cli notebook interactive
integrations containerd
__init__ __main__
"""
ORDER = TOP_DOWN.split()

# Imports under ``if TYPE_CHECKING`` count like any other, but for these: (importer, imported) -> why.
TYPING_ONLY = {
    ("errors", "spec"): "errors carry the descriptor that they are about; spec raises errors",
}

# Outside the core: these may import packages that are not in the standard library.
OUTSIDE = ("notebook", "integrations", "containerd")

# In the core: module -> packages that it may import inside a function, at first use.
OPTIONAL = {
    "layers/compression/inflate.py": {"isal", "zlib_ng", "backports", "compression"},
    "net/tls.py": {"certifi"},  # where a system has no authorities of its own
    "remotes/registry/hosts_toml.py": {"tomli"},  # before Python 3.11
    "rows.py": {"pandas"},
}

ENVIRONMENT = {"settings.py"}
OPENERS = {"net/http.py", "net/dial.py"}  # dial.py is the half of http.py that connects
NETWORK = OPENERS | {
    "net/body.py",
    "net/reasons.py",
    "net/tls.py",
}  # framing, errors and contexts, for those two
OPENING = {
    *(
        "socket.socket",
        "socket.create_connection",
        "socket.create_server",
        "socket.socketpair",
        "socket.fromfd",
    ),
    *("http.client.HTTPConnection", "http.client.HTTPSConnection", "urllib.request.urlopen"),
    *("asyncio.open_connection", "socketserver.TCPServer", "http.server.HTTPServer"),
}
NETWORK_MODULES = {
    *("socket", "ssl", "_socket", "_ssl", "http.client", "http.server", "urllib.request", "socketserver"),
    *("asyncio", "selectors", "ftplib", "smtplib", "imaplib", "poplib", "telnetlib", "nntplib", "xmlrpc"),
}
BANNED_NAMES = {
    "utils",
    "util",
    "helpers",
    "common",
    "misc",
}  # a credential helper is a thing; "helpers" is not
MAX_LINES = 500

# Public, in spite of their spelling: of named tuples and of IPython's protocol.
PUBLIC_ALL_THE_SAME = frozenset({"_replace", "_asdict", "_fields", "_make", "_repr_html_"})
# (module, private name of a foreign object) -> why there is no other way.
NO_PUBLIC_WAY: dict[tuple[str, str], str] = {
    **dict.fromkeys(
        [
            ("cli/main.py", "_actions"),
            ("cli/offers.py", "_actions"),
            ("cli/options.py", "_option_string_actions"),
        ],
        "argparse lists no options otherwise",
    ),
    ("cli/options.py", "_group_actions"): "argparse lists no options otherwise",
    ("net/dial.py", "_create_connection"): "http.client connects by it, and vcrpy looks for it",
    ("integrations/vcr.py", "_from_dict"): "vcrpy has no other way to make a request of a cassette's",
    ("integrations/vcr.py", "_to_dict"): "the same, the other way",
}
# (module, name) -> whose it is: an object that is not ours, and has it on some systems or in some versions only.
FOREIGN_PROBES: dict[tuple[str, str], str] = {
    **dict.fromkeys(
        [("trees/local_file.py", "st_blocks"), ("trees/directory.py", "st_blocks")],
        "os.stat_result, not on Windows",
    ),
    **dict.fromkeys(
        [
            ("terminal/bars.py", "encoding"),
            ("cli/streams.py", "encoding"),
            ("cli/streams.py", "line_buffering"),
            ("cli/streams.py", "write_through"),
        ],
        "streams that a notebook or a test puts in the place of stdout",
    ),
    **dict.fromkeys(
        [
            ("net/body.py", "fp"),
            ("net/body.py", "defects"),
            ("net/http.py", "getpeercert"),
            ("net/http.py", "reason"),
        ],
        "objects of http.client, email and ssl, and what vcrpy puts in their place",
    ),
    **dict.fromkeys(
        [("integrations/vcr.py", "extra_paths"), ("integrations/vcr.py", "read")],
        "persisters and bodies of vcrpy",
    ),
    **dict.fromkeys(
        [
            ("notebook/live.py", "kernel"),
            ("notebook/widget.py", "layout"),
            ("notebook/widget.py", "style"),
            ("notebook/widget.py", "close"),
        ],
        "shells of IPython, and parts of ipywidgets",
    ),
    ("cli/context.py", "quiet"): "argparse.Namespace: some commands have the option",
    ("net/tls.py", "reason"): "ssl.SSLError, which has it if OpenSSL made it",
    ("view/sizes.py", "timestamp"): "datetime, which costs a listing too much to load",
}


@dataclass(frozen=True)
class Import:
    """One imported module: ``name`` is absolute and dotted, ``line`` where; ``lazy`` inside a function."""

    name: str
    line: int
    typing: bool
    lazy: bool


@dataclass(frozen=True)
class Module:
    """A module of the package: ``path`` is below ``ocidist/``, with slashes."""

    path: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, self.path)

    @property
    def unit(self) -> str:
        """The word in ORDER: the package below ``ocidist``, or the module's own name."""
        return self.path.split("/")[0].removesuffix(".py")

    @property
    def dotted(self) -> str:
        """``ocidist.spec.digest``."""
        name = f"{PACKAGE}/{self.path}".removesuffix(".py").removesuffix("/__init__")
        return name.replace("/", ".")

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(_imports(self.tree, self, typing=False, lazy=False))

    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(self.tree)


def _imports(node: ast.AST, module: Module, typing: bool, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, typing, lazy)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(child, module)
            for alias in child.names:
                yield Import(f"{base}.{alias.name}", child.lineno, typing, lazy)
        elif isinstance(child, ast.Call) and _imports_by_name(child):
            argument = child.args[0]
            assert isinstance(argument, ast.Constant)
            yield Import(str(argument.value), child.lineno, typing, lazy)
        inside = lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            for statement in child.body:
                yield from _imports(ast.Module([statement], []), module, True, inside)
            for statement in child.orelse:
                yield from _imports(ast.Module([statement], []), module, typing, inside)
        else:
            yield from _imports(child, module, typing, inside)


def _absolute(node: ast.ImportFrom, module: Module) -> str:
    if not node.level:
        return node.module or ""
    package = module.dotted.split(".")
    if not module.path.endswith("__init__.py"):
        package = package[:-1]
    package = package[: len(package) - (node.level - 1)]
    return ".".join([*package, node.module] if node.module else package)


def _imports_by_name(call: ast.Call) -> bool:
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if called not in ("import_module", "__import__") or not call.args:
        return False
    return isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


# -- the rules --------------------------------------------------------------------------------------


def order(module: Module) -> Iterator[str]:
    """A unit imports only from what stands above it."""
    if module.unit not in ORDER:
        yield f"{module.path}: {module.unit} has no place in ORDER"
        return
    for item in module.imports:
        parts = item.name.split(".")
        if parts[0] != PACKAGE:
            continue
        target = _target(parts, module)
        if target == module.unit or (item.typing and (module.unit, target) in TYPING_ONLY):
            continue
        if target not in ORDER or ORDER.index(target) > ORDER.index(module.unit):
            yield f"{module.path}:{item.line}: {module.unit} imports {item.name}, which stands below it"


def _target(parts: list[str], module: Module) -> str:
    """The unit that an import reaches; the version may be asked of the front door from anywhere."""
    if len(parts) == 1:
        asked = {
            node.attr
            for node in module.nodes()
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == PACKAGE
        }
        return module.unit if asked == {"__version__"} else "__init__"
    if parts[1] == "__version__":
        return module.unit
    known = parts[1] in ORDER or (ROOT / PACKAGE / parts[1]).is_dir() or _is_file(parts[1])
    return parts[1] if known else "__init__"


def _is_file(unit: str) -> bool:
    return (ROOT / PACKAGE / f"{unit}.py").is_file()


def standard_library(module: Module) -> Iterator[str]:
    """The core imports nothing outside the standard library; optional parts only lazily, where stated."""
    if module.unit in OUTSIDE:
        return
    for item in module.imports:
        top = item.name.split(".")[0]
        allowed = OPTIONAL.get(module.path, set())
        if top == PACKAGE or item.typing:
            continue
        if top in allowed:
            if not item.lazy:
                yield f"{module.path}:{item.line}: {top} is optional, and imported before it is used"
        elif top not in sys.stdlib_module_names or top == "compression":
            yield f"{module.path}:{item.line}: the core imports {top}"


def environment(module: Module) -> Iterator[str]:
    """Only settings.py reads the environment and home folders."""
    if module.path in ENVIRONMENT:
        return
    banned = {"environ", "environb", "getenv", "getenvb", "expanduser", "expandvars"}
    for node in module.nodes():
        found = ""
        if isinstance(node, ast.Attribute):
            if node.attr in banned:
                found = ast.unparse(node)
            elif node.attr == "home" and ast.unparse(node.value) in ("Path", "pathlib.Path", "PosixPath"):
                found = "Path.home"
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "posix", "os.path", "posixpath"):
            found = next((alias.name for alias in node.names if alias.name in banned), "")
        if found:
            yield f"{module.path}:{getattr(node, 'lineno', 0)}: {found} (only settings.py reads the environment)"


def network(module: Module) -> Iterator[str]:
    """What can open a socket is imported by net/http.py and its parts alone."""
    if module.path in NETWORK or module.unit in ("server", "containerd"):
        return
    for item in module.imports:
        parts = item.name.split(".")
        prefixes = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
        if not item.typing and prefixes & NETWORK_MODULES:
            yield f"{module.path}:{item.line}: {item.name} opens sockets (only net/http.py does)"


def sockets(module: Module) -> Iterator[str]:
    """Of those parts, only http.py and its connecting half open sockets."""
    if module.path in OPENERS or module.unit in ("server", "containerd"):
        return
    for node in module.nodes():
        if isinstance(node, ast.Call) and ast.unparse(node.func) in OPENING:
            yield f"{module.path}:{node.lineno}: {ast.unparse(node.func)}() (only net/http.py opens sockets)"


def prints(module: Module) -> Iterator[str]:
    """No print below cli/, and no debugger anywhere."""
    for node in module.nodes():
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if called == "breakpoint" or (called == "print" and module.unit != "cli"):
            yield f"{module.path}:{getattr(node, 'lineno', 0)}: {called}()"


def length(module: Module) -> Iterator[str]:
    """A file of more than 500 lines holds a second concept."""
    lines = len(module.source.splitlines())
    if lines > MAX_LINES:
        yield f"{module.path}: {lines} lines, more than {MAX_LINES}"


def names(module: Module) -> Iterator[str]:
    """A module is named after a concept."""
    for part in module.path.removesuffix(".py").split("/"):
        if part.strip("_").lower() in BANNED_NAMES:
            yield f"{module.path}: {part!r} names no concept"


def postponed(module: Module) -> Iterator[str]:
    """Annotations are not evaluated, so that 3.10 reads what 3.14 does."""
    if module.path in ("__init__.py", "__main__.py"):
        return
    if all(isinstance(node, ast.Expr) for node in module.tree.body):  # empty, or a docstring alone
        return
    if not any(item.name == "__future__.annotations" for item in module.imports):
        yield f"{module.path}: no 'from __future__ import annotations'"


def private(module: Module) -> Iterator[str]:
    """No object reaches into another: ``x._y`` is for ``self``, ``cls``, and other instances of the same class."""
    for node, own in _in_classes(module.tree, frozenset()):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        value = ast.unparse(node.value)
        if value in ("self", "cls", "super()", "os", "sys") or node.attr in own | PUBLIC_ALL_THE_SAME:
            continue
        if (module.path, node.attr) not in NO_PUBLIC_WAY:
            yield f"{module.path}:{node.lineno}: {ast.unparse(node)} (private to another object)"


def probes(module: Module) -> Iterator[str]:
    """What our own objects have is said by their protocol: no ``getattr`` or ``hasattr`` with a literal name."""
    foreign = {item.name.split(".")[0] for item in module.imports if not item.name.startswith(PACKAGE)}
    for node in module.nodes():
        if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("getattr", "hasattr"):
            continue
        asked = node.args[1] if len(node.args) > 1 else None
        if not isinstance(asked, ast.Constant) or ast.unparse(node.args[0]).split(".")[0] in foreign:
            continue
        if (module.path, asked.value) not in FOREIGN_PROBES:
            yield f"{module.path}:{node.lineno}: {ast.unparse(node)} (say it in a protocol)"


def _in_classes(node: ast.AST, own: frozenset[str]) -> Iterator[tuple[ast.AST, frozenset[str]]]:
    """Every node below ``node``, with the names that the classes around it define."""
    for child in ast.iter_child_nodes(node):
        inner = own | frozenset(_defined(child)) if isinstance(child, ast.ClassDef) else own
        yield child, inner
        yield from _in_classes(child, inner)


def _set_on_self(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in ("self", "cls")


def _defined(node: ast.ClassDef) -> Iterator[str]:
    for inside in ast.walk(node):
        if isinstance(inside, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield inside.name
        elif isinstance(inside, ast.Name) and isinstance(inside.ctx, ast.Store):
            yield inside.id
        elif isinstance(inside, ast.Attribute) and _set_on_self(inside):
            yield inside.attr


RULES: tuple[Callable[[Module], Iterator[str]], ...] = (
    order,
    standard_library,
    environment,
    network,
    sockets,
    prints,
    length,
    names,
    postponed,
    private,
    probes,
)


def modules() -> list[Module]:
    """Every module of the package."""
    base = ROOT / PACKAGE
    paths = sorted(path for path in base.rglob("*.py") if "__pycache__" not in path.parts)
    return [Module(path.relative_to(base).as_posix(), path.read_text("utf-8")) for path in paths]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Callable[[Module], Iterator[str]]) -> None:
    """No module of the package breaks it."""
    found = modules()
    assert len(found) > 20, "the package was not found"
    broken = [sentence for module in found for sentence in rule(module)]
    assert not broken, "\n" + "\n".join(broken)


# -- the rules can fail -----------------------------------------------------------------------------

PLANTED = [
    (order, "spec/x.py", "from ocidist.net import http", "spec imports ocidist.net.http"),
    (order, "spec/x.py", "import ocidist.stores.local", "stands below"),
    (order, "spec/x.py", "def f():\n    from ocidist.cli.main import main", "cli.main"),
    (order, "spec/x.py", "from ocidist import client", "ocidist.client"),
    (order, "spec/x.py", "from ocidist import open", "ocidist.open"),
    (order, "spec/x.py", "import ocidist\nocidist.open('x')\nocidist.__version__", "imports ocidist,"),
    (order, "spec/x.py", "from ..net.http import A", "ocidist.net.http.A"),
    (order, "spec/__init__.py", "from ..stores.local import Store", "ocidist.stores.local.Store"),
    (order, "rows.py", "from . import stores", "ocidist.stores"),
    (order, "spec/x.py", "from importlib import import_module\nimport_module('ocidist.stores.local')", ":2:"),
    (
        order,
        "spec/x.py",
        "if TYPE_CHECKING:\n    from ocidist.stores.local import Store",
        "ocidist.stores.local",
    ),
    (order, "errors.py", "from ocidist.spec.digest import Digest", "ocidist.spec"),
    (
        order,
        "errors.py",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from ocidist.spec.digest import Digest",
        ":4:",
    ),
    (order, "gadgets.py", "x = 1", "no place in ORDER"),
    (standard_library, "spec/x.py", "import requests", "imports requests"),
    (standard_library, "stores/local.py", "def f():\n    import pandas as pd", "imports pandas"),
    (standard_library, "rows.py", "import pandas as pd", "before it is used"),
    (standard_library, "layers/compression/inflate.py", "from isal import igzip", "before it is used"),
    (standard_library, "layers/apply/layer.py", "def f():\n    from isal import igzip", "imports isal"),
    (standard_library, "net/x.py", "try:\n    import zstandard\nexcept ImportError:\n    pass", "zstandard"),
    (environment, "stores/local.py", "import os\nos.environ['A']", "os.environ"),
    (environment, "cli/main.py", "import os\nos.getenv('A')", "os.getenv"),
    (environment, "stores/local.py", "from os import environ", "environ"),
    (environment, "stores/local.py", "from pathlib import Path\nPath.home()", "Path.home"),
    (environment, "stores/local.py", "from pathlib import Path\nPath('~').expanduser()", "expanduser"),
    (environment, "stores/local.py", "import os.path\nos.path.expanduser('~')", "expanduser"),
    (network, "stores/local.py", "import socket", "socket"),
    (network, "net/replay.py", "def f():\n    from http.client import HTTPSConnection", "http.client"),
    (network, "remotes/registry/auth.py", "import urllib.request", "urllib.request"),
    (network, "client.py", "from urllib import request", "urllib.request"),
    (network, "net/message.py", "import ssl", "ssl"),
    (sockets, "net/tls.py", "import socket\nsocket.create_connection(('a', 1))", "create_connection"),
    (sockets, "net/body.py", "import http.client\nhttp.client.HTTPSConnection('a')", ":2:"),
    (prints, "stores/local.py", "print('x')", "print()"),
    (prints, "notebook/widgets.py", "def f():\n    print('x')", ":2:"),
    (prints, "cli/main.py", "breakpoint()", "breakpoint()"),
    (length, "stores/local.py", "x = 1\n" * 501, "501 lines"),
    (names, "net/utils.py", "", "'utils'"),
    (names, "helpers/x.py", "", "'helpers'"),
    (names, "net/_common.py", "", "'_common'"),
    (postponed, "stores/local.py", "import os", "__future__"),
    (private, "rows.py", "def f(x):\n    return x._content", "x._content"),
    (private, "rows.py", "class A:\n    def f(self):\n        return self.other._thing", "self.other._thing"),
    (private, "rows.py", "client()._transport = None", "client()._transport"),
    (probes, "rows.py", "def f(source):\n    return getattr(source, 'origin', None)", "'origin'"),
    (probes, "rows.py", "def f(sink):\n    return hasattr(sink, 'discard_damaged')", "'discard_damaged'"),
]

ALLOWED = [
    (order, "net/x.py", "from ocidist.spec.digest import Digest\nfrom ocidist import errors, __version__"),
    (order, "net/x.py", "from .message import Request\nfrom ocidist.net import scrub"),
    (order, "errors.py", "if TYPE_CHECKING:\n    from ocidist.spec.descriptor import Descriptor"),
    (order, "cli/main.py", "import ocidist\nocidist.__version__"),
    (order, "__init__.py", "from ocidist.client import Client"),
    (standard_library, "rows.py", "def f():\n    import pandas"),
    (standard_library, "layers/compression/inflate.py", "def f():\n    from isal import igzip"),
    (standard_library, "notebook/widgets.py", "import ipywidgets"),
    (standard_library, "stores/local.py", "import sqlite3, json\nfrom ocidist.errors import OcidistError"),
    (environment, "settings.py", "import os\nos.environ['A']"),
    (environment, "stores/local.py", "settings.home\nPath(root) / 'home'"),
    (network, "net/http.py", "import socket, ssl, http.client"),
    (network, "client.py", "import urllib.parse\nfrom http import HTTPStatus"),
    (network, "net/reasons.py", "import ssl"),
    (sockets, "net/dial.py", "import socket\nsocket.socket()"),
    (sockets, "net/body.py", "import http.client\nhttp.client.HTTPResponse.read"),
    (prints, "cli/main.py", "print('x')"),
    (prints, "view/text.py", "printed = visible('print()')"),
    (length, "stores/local.py", "x = 1\n" * 500),
    (names, "net/dial.py", ""),
    (postponed, "stores/local.py", '"""Doc."""\nfrom __future__ import annotations\nimport os'),
    (postponed, "cli/__init__.py", '"""Only a sentence."""'),
    (private, "rows.py", "class A:\n    def f(self, other):\n        self._x = other._x"),
    (private, "rows.py", "row._replace(name=1)\nos._exit(1)"),
    (probes, "rows.py", "import os\ngetattr(os, 'O_PATH', 0)\ngetattr(x, name)"),
    (probes, "terminal/bars.py", "getattr(stream, 'encoding', None)"),
]


@pytest.mark.parametrize(("rule", "path", "source", "said"), PLANTED)
def test_a_planted_violation_is_found(
    rule: Callable[[Module], Iterator[str]], path: str, source: str, said: str
) -> None:
    """Each rule names the file and what is wrong with it."""
    found = list(rule(Module(path, source)))
    assert len(found) == 1
    assert path in found[0]
    assert said in found[0]


@pytest.mark.parametrize(("rule", "path", "source"), ALLOWED)
def test_what_is_allowed_is_not_reported(
    rule: Callable[[Module], Iterator[str]], path: str, source: str
) -> None:
    """Each rule lets the neighbour of a violation pass."""
    assert list(rule(Module(path, source))) == []


def test_every_rule_has_a_planted_violation() -> None:
    """A rule that is added without one is noticed."""
    assert {rule for rule, *_ in PLANTED} == {rule for rule, *_ in ALLOWED} == set(RULES)


# -- imports, for real ------------------------------------------------------------------------------

# One interpreter, a fork for each module: none finds what another has imported.
LONE_IMPORTS = """
import importlib, json, os, sys
root, names = json.loads(sys.argv[1])
sys.path.insert(0, root)
failed = {}
for name in names:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
            os.write(write, b"ok")
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    if said != "ok":
        failed[name] = said or "ended without a word"
json.dump(failed, sys.stdout)
"""


def lone_imports(root: Path, found: list[str]) -> dict[str, str]:
    """Module -> why it can't be imported by itself with nothing but the standard library."""
    command = [sys.executable, "-I", "-S", "-c", LONE_IMPORTS, json.dumps([str(root), found])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    failed: dict[str, str] = json.loads(done.stdout)
    return failed


def test_each_core_module_imports_alone_with_the_standard_library_only() -> None:
    """``python -I -S`` has no site-packages, so an import of anything else fails."""
    core = [module for module in modules() if module.unit not in (*OUTSIDE, "__main__")]
    assert lone_imports(ROOT, [module.dotted for module in core]) == {}


def test_a_module_that_needs_more_is_noticed(tmp_path: Path) -> None:
    """The check above can fail: on a missing package, on a cycle, and it goes on after them."""
    (tmp_path / "needs.py").write_text("import pytest\n")
    (tmp_path / "one.py").write_text("from two import b\na = 1\n")
    (tmp_path / "two.py").write_text("from one import a\nb = 1\n")
    (tmp_path / "fine.py").write_text("import json\n")
    failed = lone_imports(tmp_path, ["needs", "one", "two", "fine"])
    assert set(failed) == {"needs", "one", "two"}
    assert "No module named 'pytest'" in failed["needs"]


HEAVY = ("ssl", "http.client", "tarfile", "logging", "pandas", "IPython", "ipywidgets", "urllib.request")


def loaded_after(statement: str) -> set[str]:
    """The modules that an isolated interpreter holds after ``statement``."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{statement}\nprint('\\n'.join(sys.modules))"
    command = [sys.executable, "-I", "-c", code]
    return set(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split())


def test_the_front_door_loads_nothing_slow() -> None:
    """``import ocidist`` is for a notebook's first cell: it loads no network, tar, logging or notebook code."""
    loaded = loaded_after("import ocidist")
    assert PACKAGE in loaded
    assert loaded.isdisjoint(HEAVY), sorted(loaded.intersection(HEAVY))


def test_the_values_load_nothing_slow() -> None:
    """``spec`` and ``settings`` are on the path of every command."""
    loaded = loaded_after(
        "import ocidist.spec.manifest, ocidist.spec.config, ocidist.spec.reference, ocidist.spec.platform\n"
        "import ocidist.spec.chain, ocidist.settings\n"
        "ocidist.settings.Settings.load()\n"
    )
    assert f"{PACKAGE}.spec.manifest" in loaded
    assert loaded.isdisjoint({*HEAVY, "json", "socket", "datetime", "base64", "sqlite3", "tempfile"})


def test_what_is_loaded_is_seen() -> None:
    """The probe above can fail."""
    assert "tarfile" in loaded_after("import tarfile")


def test_a_listing_loads_no_network(tmp_path: Path) -> None:
    """``ocidist list`` starts as fast as argparse does: what else it could do is not loaded for it."""
    command = f"from ocidist.cli.main import main; main(['--root', {str(tmp_path)!r}, 'list'])"
    loaded = loaded_after(command)
    assert f"{PACKAGE}.cli.main" in loaded
    unwanted = {*HEAVY, "hashlib", "json", "pathlib", "shutil", "sqlite3", "urllib.parse"}
    assert loaded.isdisjoint(unwanted), sorted(loaded.intersection(unwanted))
