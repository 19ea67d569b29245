"""What the galaxies of a class are physically: their properties against those of matched controls."""
