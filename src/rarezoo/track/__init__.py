"""Logs of trainings and searches besides the files that every run writes: W&B, CSV or TensorBoard.

A log never decides the result. If logging fails, the training or the search continues and one warning says why. Nothing
here imports wandb, torch or Lightning before a log is opened, and no other package imports wandb.
"""

from rarezoo.track.records import ClassMosaic, SearchRecord, TrainingRecord, epoch_metrics
from rarezoo.track.tracker import Tracker

__all__ = ["ClassMosaic", "SearchRecord", "Tracker", "TrainingRecord", "epoch_metrics"]
