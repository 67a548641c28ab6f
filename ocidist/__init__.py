"""ocidist: the pandas of container images. The front door, lazy: it composes and defines nothing."""

__version__ = "0.1.0"
