"""From embeddings to classes: select, compress, cluster, describe. No torch, no wandb.

Every step takes and gives plain arrays or tables; row i means the same galaxy in all of them:

    store = EmbeddingStore.open("runs/embed").read()                       # EMBEDDINGS table
    mask, tolls = Select(drop=["`smooth-or-featured_smooth_fraction` >= 0.5"]).kept(store, seed=0)
    sample = store.filter(pa.array(mask))
    ids = tables.strings(sample, tables.ID)
    fitted = Umap(n_neighbors=30).fit(tables.matrix(sample, tables.EMBEDDING), ids=ids, seed=0)
    fitted.save("runs/cluster/fitted_map")                                 # FittedMap.open(folder) reads it again
    new_positions = fitted.transform(new_embeddings)                           # (m, k), without moving the others
    clusterer = Hdbscan(min_samples=30, min_cluster_size=20, selection="leaf")
    linkage = clusterer.linkage(fitted.positions)                          # LINKAGE table, slow, once
    clustering = clusterer.classes(linkage, ids=ids)                       # cheap: again for every other setting
    clustering.labels, clustering.probabilities, clustering.tree           # (n,), (n,), TREE table
    classes = class_table(clustering, ids=ids, positions=fitted.positions, predictions=sample)   # CLASSES
    members = member_table(clustering, ids=ids)                            # MEMBERS
"""
