"""Compressed layers: inflated (``inflate``, ``feed``) and deflated."""
