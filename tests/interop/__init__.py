"""Tests against real registries, skopeo, umoci, containerd and runc."""
