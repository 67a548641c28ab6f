"""Notebook faces: IPython, ipywidgets. Nothing here is imported before a notebook asks for it."""
