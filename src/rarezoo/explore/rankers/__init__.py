"""One file per ranker; each is a choice of ``ranker=``."""
