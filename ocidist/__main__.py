"""``python -m ocidist``, and where the single file starts.

What stands before the check is read by older Pythons, too: they get a sentence, not a traceback.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit("ocidist needs Python 3.10 or later; this is %d.%d.%d" % sys.version_info[:3])  # noqa: UP031


def leave_out_working_directory() -> None:
    """Take the working directory, which ``python -m`` puts first, out of ``sys.path``.

    Else a file there passes for a module of Python's, or a folder for an installed package. This package is found
    by its own path from here on. ``python -P`` and ``-I`` put nothing there.
    """
    import os  # loaded by now, whatever lies in the working directory: site and runpy need it

    if sys.flags.isolated or getattr(sys.flags, "safe_path", False) or not sys.path:
        return
    try:
        here = os.getcwd()
    except OSError:  # removed meanwhile, so nothing can be found there
        return
    if sys.path[0] in ("", here):
        del sys.path[0]


def start() -> None:
    """Load the program and run it."""
    try:
        from ocidist.cli.main import console
    except KeyboardInterrupt:  # while it was being loaded: nothing was begun
        raise SystemExit(130) from None
    console()


if __name__ == "__main__":
    leave_out_working_directory()
    start()
