"""Results for people and other tools: pages on disk, pictures in a notebook, exports, and records for a log."""
