"""Tar archives: members out of bytes (``records``), and bytes out of entries (``packing``)."""
