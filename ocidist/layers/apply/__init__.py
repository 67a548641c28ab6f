"""A layer applied to a directory: contained, in one pass (``layer``)."""
