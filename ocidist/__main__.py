"""``python -m ocidist``, and where the single file starts.

What stands before the check is read by older Pythons, too: they get a sentence, not a traceback.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit("ocidist needs Python 3.10 or later; this is %d.%d.%d" % sys.version_info[:3])  # noqa: UP031


def start() -> None:
    """Load the program and run it."""
    try:
        from ocidist.cli.main import console
    except KeyboardInterrupt:  # while it was being loaded: nothing was begun
        raise SystemExit(130) from None
    console()


if __name__ == "__main__":
    start()
