"""Training: a survey and an objective in, a checkpoint out."""
