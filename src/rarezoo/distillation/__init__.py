"""Dataset distillation: a few synthetic images that stand for many galaxies, and prototypes of discovered classes."""
