"""Names, labels and leases: ``sqlite`` keeps them in one file."""
