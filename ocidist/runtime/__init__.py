"""From an image to an OCI runtime bundle: what runc and crun run."""
