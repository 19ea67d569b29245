"""The mock sky: galaxies with a known truth, their cutouts, and the votes that volunteers would give them."""
