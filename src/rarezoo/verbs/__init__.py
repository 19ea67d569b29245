"""What one does with checkpoints, stores and finished searches: a module per verb of ``rarezoo``, each thin.

demo                          a mock survey, from votes to a page of classes
judge, failures, study        what an embedding is worth, where a network fails, what its bottleneck costs
comparing, contrasting        classes of one search and another; several searches side by side
placing, deciding, exporting  new galaxies into classes, decisions made by hand, classes for other programs
leaderboard, sweeping         what the jobs of a multirun found
keeper                        ``rarezoo zoo``
"""
