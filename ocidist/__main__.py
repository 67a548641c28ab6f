"""``python -m ocidist``."""

if __name__ == "__main__":
    try:
        from ocidist.cli.main import console
    except KeyboardInterrupt:  # while it was being loaded: nothing was begun
        raise SystemExit(130) from None
    console()
