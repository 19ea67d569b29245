"""Find the galaxies that one person cares about: similar galaxies, ratings in a database, a ranking, a page to rate on."""
