"""Architectures, one per file; each file is a choice of ``model=``."""
