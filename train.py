"""python train.py --help lists what can be set; the result is a checkpoint folder at out=DIR."""

from rarezoo.cli import train

if __name__ == "__main__":
    train()
