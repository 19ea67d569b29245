"""One file per compressor; each is a choice of ``compress=``."""
