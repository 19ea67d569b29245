"""From embeddings to classes: select, compress, build the tree, choose classes, measure. No torch, no wandb.

A whole search is one call::

    search = rarezoo.search("runs/embed", out="runs/search")               # -> Search
    search = rarezoo.Search.open("runs/search")                            # later

Every step is also a function of plain arrays and tables. Row i is the same galaxy in all of them::

    store = EmbeddingStore.open("runs/embed")
    ids, embeddings = store.ids, store.embeddings()
    fitted = FastUmap(n_neighbors=15).fit(embeddings, ids=ids, seed=0)     # FittedMap
    fitted.transform(new_embeddings)                                       # (m, k); nothing on the map moves
    clusterer = FastHdbscan(min_samples=10, selection="isolated")
    linkage = clusterer.linkage(fitted.positions)                          # LINKAGE table; slow, once
    tree = clusterer.tree(linkage)                                         # CondensedTree; fast
    features = fitted.features(embeddings)
    null = null_surveys(features, fitted.compressor, count=20, galaxies=4000, tree_of=fine_tree)
    scores = TreeScores.of(tree, features, null, Significance())
    clustering = clusterer.select(tree, scores, ids=ids)                   # labels, probabilities, nodes
    classes = class_table(clustering, ids=ids, positions=fitted.positions)  # CLASSES table
    members = member_table(clustering, ids=ids)                            # MEMBERS table
"""
