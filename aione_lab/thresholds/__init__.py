"""Thresholds: the numbers a study calibrates, per symbol, their defaults, and the store of calibrated sets."""

from aione_lab.thresholds.params import Thresholds
from aione_lab.thresholds.provenance import Entry, Provenance
from aione_lab.thresholds.search import Search, search_space
from aione_lab.thresholds.store import Current, ThresholdStore

__all__ = ["Current", "Entry", "Provenance", "Search", "ThresholdStore", "Thresholds", "search_space"]
