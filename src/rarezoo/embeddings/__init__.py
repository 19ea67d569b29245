"""A store of embeddings, how it is made from a survey and a checkpoint, and what it is worth."""
