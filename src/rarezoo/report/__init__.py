"""The report: galleries and pages on disk, mirrored to W&B."""
