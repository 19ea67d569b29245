"""Surveys: their galaxies, images, votes and question trees, and loaders that bring them to a network."""
