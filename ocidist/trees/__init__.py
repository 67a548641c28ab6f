"""Trees of files: how they are read, whoever keeps them, and how two of them differ."""
