"""Run the lessons of ``notebooks/`` in a kernel that can't open a socket, and compare or save what they show.

    python -m tests.notebooks.execute            # run all and save their outputs in place
    python -m tests.notebooks.execute 01 02      # those whose names begin so

Outputs that differ only in what :func:`normalised` takes out (seconds, rates) are left as they were saved.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterator

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
VIEW = "application/vnd.jupyter.widget-view+json"
SECONDS = 120  # for one cell

# The kernel speaks to us by sockets of libzmq, which Python's audit events don't see; everything else would be
# opened by the socket module.
GUARD = """
def _guard():
    import os, sys
    log = os.environ["OCIDIST_TEST_SOCKETS"]
    names = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"}
    def hook(event, args):
        if event in names and not isinstance(args[-1], (str, bytes)):  # a path is no network
            with open(log, "a") as file:
                file.write(event + "\\n")
            raise OSError("no network in this kernel: " + event)
    sys.addaudithook(hook)
    with open(log, "a") as file:
        file.write("guarded\\n")
_guard()
del _guard
"""


class Ran:
    """A notebook after its run. ``sockets`` are the audit events of sockets to a network: none, if all is well."""

    def __init__(self, notebook: Any, sockets: list[str]) -> None:
        self.notebook, self.sockets = notebook, sockets


def read(path: Path) -> Any:
    """The notebook of a file."""
    import nbformat

    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def lessons() -> list[Path]:
    """Every notebook that is kept here, by name."""
    return sorted(FOLDER.glob("*.ipynb"))


def run(notebook: Any, *, folder: Path = FOLDER) -> Ran:
    """Execute ``notebook`` in place, with ``folder`` as the kernel's, an empty home and no network."""
    import nbclient

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        startup = work / "ipython/profile_default/startup"
        startup.mkdir(parents=True)
        (startup / "00-guard.py").write_text(GUARD)
        log = work / "sockets"
        client = nbclient.NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            store_widget_state=False,
            record_timing=False,
        )
        client.execute(env=environment(work, OCIDIST_TEST_SOCKETS=str(log)))
        lines = log.read_text().splitlines()
    if lines[:1] != ["guarded"]:
        raise RuntimeError("the kernel ran without its guard")
    _settle(notebook)
    return Ran(notebook, lines[1:])


def environment(work: Path, **more: str) -> dict[str, str]:
    """What a kernel gets: this tree's package, a home and a store in ``work``, none of the caller's settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY")
        and name not in ("OCIDIST_REPLAY", "OCIDIST_PLATFORM", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE")
    }
    home = work / "home"
    home.mkdir(exist_ok=True)
    return {
        **kept,
        "HOME": str(home),
        "IPYTHONDIR": str(work / "ipython"),
        "OCIDIST_ROOT": str(work / "root"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        **more,
    }


def _settle(notebook: Any) -> None:
    """Metadata that doesn't depend on who ran it."""
    notebook.metadata = type(notebook.metadata)(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)


_TIMES = re.compile(r"elapsed: [^<\n]*?(  | · )total: ([0-9.]+ \w+)( \([^)]*/s\))?")


def normalised(text: str) -> str:
    """``text`` without what changes from run to run: a transfer's seconds and rate."""
    return _TIMES.sub(r"elapsed: …\1total: \2", text)


def shown(notebook: Any) -> list[tuple[str, Any]]:
    """What a reader sees of the outputs, normalised: for each a cell's id, and its data by media type or text."""
    return [(cell.id, _plain(output)) for cell, output in outputs(notebook)]


def outputs(notebook: Any) -> Iterator[tuple[Any, Any]]:
    """Every output with its cell."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            yield cell, output


def _plain(output: Any) -> Any:
    if output.output_type == "stream":
        return output.name, normalised(output.text)
    if output.output_type == "error":
        return output.ename, output.evalue
    return {kind: normalised(value) for kind, value in output.data.items()}


def save(path: Path, notebook: Any) -> bool:
    """Write it if it shows something else than what is saved; True if it was written."""
    import nbformat

    before = read(path)
    if shown(before) == shown(notebook) and before.metadata == notebook.metadata:
        return False
    text = nbformat.writes(notebook, indent=1, ensure_ascii=False)  # type: ignore[no-untyped-call]
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return True


def main(names: list[str]) -> int:
    """Run and save; 1 if a kernel asked for the network."""
    code = 0
    for path in lessons():
        if names and not path.name.startswith(tuple(names)):
            continue
        ran = run(read(path))
        if ran.sockets:
            print(f"{path.name}: asked for the network: {', '.join(ran.sockets)}", file=sys.stderr)
            code = 1
            continue
        print(f"{path.name}: {'saved' if save(path, ran.notebook) else 'as it was'}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
