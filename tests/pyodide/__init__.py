"""``python -m tests.pyodide``: the tests of the core on a CPython 3.14 without threads, sockets and processes."""
