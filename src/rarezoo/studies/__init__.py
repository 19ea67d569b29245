"""Studies over many runs: what a bottleneck costs, what a search owes to its settings, the board of a sweep."""
