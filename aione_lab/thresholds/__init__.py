"""Thresholds: the numbers a study calibrates, per symbol, and how defaults are chosen."""

from aione_lab.thresholds.params import Thresholds
from aione_lab.thresholds.search import Search, search_space

__all__ = ["Search", "Thresholds", "search_space"]
