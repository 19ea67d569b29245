"""Measurements that say how fast, how good and how honest the rest is; each prints what it compares with.

throughput   ``rarezoo bench``: images/s as shares of the bare network
search       ``rarezoo benchmark search``: our seeded search against umap-learn and hdbscan
paper        ``rarezoo benchmark paper``: what the paper says of its own settings
classes      ``rarezoo benchmark classes``: which planted classes a search finds, how many are real (board.py)
atlas        ``rarezoo benchmark atlas``: frames/s of the page at a million galaxies
"""
