"""Explore galaxies by hand: similar galaxies, ratings, a ranking that learns from them, and the page for all of it."""
