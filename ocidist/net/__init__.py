"""The network as one seam: ``message`` (the protocol), ``http`` (sockets), ``recording``, ``replay``."""
