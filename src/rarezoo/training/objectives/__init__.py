"""Training objectives, one per file; each file is a choice of ``objective=``."""
