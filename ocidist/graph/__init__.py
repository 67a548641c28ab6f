"""Graphs of descriptors: what names what (``walk``), and their copying from a source to a sink (``copy``)."""
