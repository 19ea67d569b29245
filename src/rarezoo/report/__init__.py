"""Classes shown to people: pages on disk, and the same mirrored to W&B."""
