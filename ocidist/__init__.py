"""ocidist: the pandas of container images.

    import ocidist as oci
    img = oci.open("docker.io/library/redis:7")
    img.layers.to_frame()

The front door, lazy: importing it loads nothing else; each name is fetched where it lives when it is used.
Pythons from 3.6 on can read it, so that ``python -m ocidist`` can tell which it needs.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # as type checkers take it; typing itself would be most of what this import costs
if TYPE_CHECKING:
    from typing import Any

    from ocidist.client import Client as Client
    from ocidist.errors import OcidistError as OcidistError
    from ocidist.image import Image as Image
    from ocidist.interactive import demo as demo
    from ocidist.interactive import doctor as doctor
    from ocidist.interactive import login as login
    from ocidist.interactive import logout as logout
    from ocidist.interactive import online as online
    from ocidist.interactive import open as open
    from ocidist.interactive import pull as pull
    from ocidist.interactive import replay as replay
    from ocidist.interactive import resolve as resolve
    from ocidist.interactive import tags as tags
    from ocidist.interactive import trace as trace
    from ocidist.rows import Rows as Rows
    from ocidist.scope import Scope as Scope
    from ocidist.spec.digest import Digest as Digest
    from ocidist.spec.platform import Platform as Platform
    from ocidist.spec.reference import Reference as Reference
    from ocidist.stores.store import Store as Store

_WHERE = {
    "Client": "client",
    "Digest": "spec.digest",
    "Image": "image",
    "OcidistError": "errors",
    "Platform": "spec.platform",
    "Reference": "spec.reference",
    "Rows": "rows",
    "Scope": "scope",
    "Store": "stores.store",
    **dict.fromkeys(
        ("demo", "doctor", "login", "logout", "online", "open", "pull", "replay", "resolve", "tags", "trace"),
        "interactive",
    ),
}

__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str) -> "Any":
    if name not in _WHERE:
        raise AttributeError(f"module 'ocidist' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"ocidist.{_WHERE[name]}"), name)


def __dir__() -> "list[str]":
    return sorted(__all__)
