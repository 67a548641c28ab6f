"""Stores: content, names, leases and snapshots under one root (``local``), and what keeps them in order (``upkeep``)."""
