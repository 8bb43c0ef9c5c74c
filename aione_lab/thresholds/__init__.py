"""Thresholds: the numbers a study calibrates, per symbol, and how defaults are chosen."""

from aione_lab.thresholds.params import Thresholds

__all__ = ["Thresholds"]
