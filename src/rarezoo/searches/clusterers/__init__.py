"""One file per clusterer; each is a choice of ``clusterer=``."""
