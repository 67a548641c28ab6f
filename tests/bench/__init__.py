"""Benches: the program against its peers, on tmpfs, in one run.

    python -m tests.bench [NAME…] [--rounds N] [--dir TMPFS] [--python PATH]
    OCIDIST_SOAK=1 python -m tests.bench       # the full counts; ends with 1 where a bound does not hold

``fetch``   ocidist fetch against skopeo copy and crane pull; its peak memory, also for one layer of 2 GiB
``pull``    ocidist pull against the faster of skopeo copy + umoci unpack and a containerd's own pull; with the
            overlay snapshotter against containerd 2.x
``start``   python -S -m ocidist list on an empty store against the imports that such a program needs
``import``  import ocidist against nothing
``unpack``  layers of a store to trees of both snapshotters, against pigz | tar and umoci
``growth``  ocidist apply of ever larger layers: what an entry, and a megabyte, costs

Contenders take turns (A B A B …), each from a clean state that is made outside the measured time; figures are
medians, and each bound stands beside its figure with "holds" or "DOES NOT HOLD". Everything that is read or written
lies on tmpfs, so a disk's moods don't show; another file system is refused. Nothing here is a test: a busy machine
makes any ratio wrong, and the load is printed on top for that reason. CPU seconds suffer least from it.

crane and containerd 2.x are built by Go, at the versions of ``tests/parts/gobuilt.py``, once, and cached.
The image is ``tests/parts/realimages.big_image``: Debian and two layers of real files, built once and cached.
"""
