"""Find the galaxies that a person cares about: their ratings, similar galaxies, rankings, and the page that shows them.

Nothing here needs torch, except to embed an image of the user's own.
"""
