"""From embeddings to classes: select, compress, cluster, describe. No torch, no wandb."""
