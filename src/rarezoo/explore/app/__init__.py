"""The live page: its HTTP API, what guards it, and what it shows of galaxies and classes."""
