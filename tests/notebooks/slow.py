"""A real registry that takes its time, with an image whose pull can be watched, and interrupted."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Iterator

from tests.parts.demo_image import HISTORY, RUN
from tests.parts.images import CREATED, Entry, TestImage, image, noise, push_layout, write_layout
from tests.parts.registry import RegistryProcess

NAME, TAG = "demo/shop", "1.0"
SIZES = (9_400_000, 5_200_000, 24_000, 1_300_000, 300, 740_000)  # bytes of each layer


def large_image() -> TestImage:
    """The shop again, with some megabytes in its layers that don't compress."""
    layers = [[Entry(f"srv/{at}.bin", noise(size, f"slow {at}"))] for at, size in enumerate(SIZES)]
    history = [{"created": CREATED, "created_by": line, "empty_layer": empty} for line, empty in HISTORY]
    return image(layers, run=RUN, history=history)


@contextlib.contextmanager
def slow_registry(folder: Path, rate: float | None = 2e6) -> Iterator[RegistryProcess]:
    """Has ``demo/shop:1.0``; each connection gets ``rate`` bytes a second."""
    layout = write_layout(folder / "layout", {TAG: large_image()})
    with RegistryProcess(folder / "registry") as registry:
        push_layout(registry.loader.url, layout, NAME, TAG)
        registry.front.forget()
        registry.front.rate = rate
        yield registry
