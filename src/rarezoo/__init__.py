"""Rare galaxy classes in the embeddings of vote-trained networks, each with the evidence that it is real."""

__version__ = "0.1.0"
