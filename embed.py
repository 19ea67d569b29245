"""python embed.py --help lists what can be set; the result is a embedding store at out=DIR."""

from rarezoo.cli import embed

if __name__ == "__main__":
    embed()
