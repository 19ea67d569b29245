"""One file per family of acquisitions; each class is a choice of ``acquisition=``."""
