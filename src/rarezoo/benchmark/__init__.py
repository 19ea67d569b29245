"""A benchmark for methods that search an embedding: planted vectors, mock galaxies, or galaxies of your own."""
