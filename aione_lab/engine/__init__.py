"""The heart: one structured state, one step function, and nothing that computes anything twice.

Start reading at ``step.py``; ``records.py`` documents every number that exists.
"""

from aione_lab.engine.custom import Factor, Trigger
from aione_lab.engine.engine import Engine
from aione_lab.engine.event import Event
from aione_lab.engine.spec import FeatureSpec

__all__ = ["Engine", "Event", "Factor", "FeatureSpec", "Trigger"]
