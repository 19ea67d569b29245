"""python cluster.py --help lists what can be set; the result is a classes and report at out=DIR."""

from rarezoo.cli import cluster

if __name__ == "__main__":
    cluster()
