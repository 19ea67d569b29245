"""Search an embedding store for rare classes and write the tables and an HTML report to ``out=DIR``.

``python cluster.py --help`` lists all settings.
"""

from rarezoo.cli import main

if __name__ == "__main__":
    main("cluster")
