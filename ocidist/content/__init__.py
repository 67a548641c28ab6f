"""The content-addressed store: ``protocols``, then ``local`` (disk), ``memory``, ``verify``, ``fill``."""
