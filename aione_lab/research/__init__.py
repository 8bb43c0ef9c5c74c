"""Studies of signals and trades, and the statistics that keep luck from looking like skill."""

from aione_lab.research.bias import BiasReport, bias_report
from aione_lab.research.compare import Comparison, compare
from aione_lab.research.episodes import Episodes, episodes
from aione_lab.research.events import EventStudy, event_study
from aione_lab.research.montecarlo import RandomEntryTest, TradeOrder, random_entry_test, trade_order
from aione_lab.research.overfitting import (
    deflated_sharpe,
    expected_maximum_sharpe,
    minimum_track_record,
    pbo,
    probabilistic_sharpe,
)
from aione_lab.research.reliability import Reliability, reliability
from aione_lab.research.splits import Splits, splits

__all__ = [
    "BiasReport",
    "Comparison",
    "Episodes",
    "EventStudy",
    "RandomEntryTest",
    "Reliability",
    "Splits",
    "TradeOrder",
    "bias_report",
    "compare",
    "deflated_sharpe",
    "episodes",
    "event_study",
    "expected_maximum_sharpe",
    "minimum_track_record",
    "pbo",
    "probabilistic_sharpe",
    "random_entry_test",
    "reliability",
    "splits",
    "trade_order",
]
