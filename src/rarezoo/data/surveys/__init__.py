"""Kinds of survey; each module is one choice of ``data=``."""
