"""``python -m ocidist``."""

from ocidist.cli.main import console

if __name__ == "__main__":
    console()
