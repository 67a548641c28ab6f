"""Bars on a terminal, for the command line and for a notebook without widgets."""
