"""Embed a survey with a trained checkpoint and write an embedding store to ``out=DIR``.

``python embed.py --help`` lists all settings.
"""

from rarezoo.cli import main

if __name__ == "__main__":
    main("embed")
