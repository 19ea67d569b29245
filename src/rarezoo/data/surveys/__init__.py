"""One file per survey; each is a choice of ``data=``."""
