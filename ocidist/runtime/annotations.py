"""A bundle's annotations, from an image's config. PURE.

Runtimes read annotations as options: hooks' output files, handlers, cgroup properties. An image must not choose
those, so of its labels only ``org.opencontainers.image.…`` become annotations, which the specification leaves to the
converter ("A converter MAY choose to not include annotations … considered to be unsafe"); the others are told.

Source: OCI image specification, conversion.md, "Annotation Fields", "Config.ExposedPorts" and "Annotations".
"""

from __future__ import annotations

from ocidist.spec.config import ImageConfig

__all__ = ["left_out", "of_config"]

PREFIX = "org.opencontainers.image."


def of_config(config: ImageConfig) -> dict[str, str]:
    """What the config itself says, then its labels, which take precedence. Empty values are left out."""
    data, run = config.data, config.run
    implied = {
        "os": data.get("os"),
        "architecture": data.get("architecture"),
        "variant": data.get("variant"),
        "os.version": data.get("os.version"),
        "os.features": ",".join(data.get("os.features") or ()),
        "author": config.author,
        "created": data.get("created"),  # as it is written
        "stopSignal": run.stop_signal,
        "exposedPorts": ",".join(run.exposed_ports),
    }
    found = {PREFIX + name: str(value) for name, value in implied.items() if value}
    found.update((name, value) for name, value in run.labels.items() if name.startswith(PREFIX))
    return found


def left_out(config: ImageConfig) -> tuple[str, ...]:
    """The labels that did not become annotations."""
    return tuple(name for name in config.run.labels if not name.startswith(PREFIX))
