"""One file per architecture; each is a choice of ``model=``."""
