"""Train a network on votes and write a checkpoint to ``out=DIR``.

``python train.py --help`` lists all settings.
"""

from rarezoo.cli import main

if __name__ == "__main__":
    main("train")
