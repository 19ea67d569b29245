"""UMAP on every core that ends on the same bits whatever the number of threads: what ``compress=fast_umap`` is made of.

    neighbours   cells of embeddings, exact search in the nearest of them
    graph        strengths of neighbours, made mutual
    start        first positions: principal components, smoothed over the graph
    layout       the descent: neighbours pull each other, in blocks that meet in rounds; random draws are hashes

Nothing here adds numbers in an order that depends on how many threads there are or on which galaxies are asked for
together. The modules import numba: import them where they are used.
"""
