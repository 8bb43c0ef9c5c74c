"""From frozen configuration objects to the one PARAMS record that the kernels read."""

from __future__ import annotations

import numpy as np

from aione_lab.engine.records import FACTORS, PARAMS, RULES
from aione_lab.engine.spec import FeatureSpec
from aione_lab.errors import InputError
from aione_lab.settings import Costs, Settings
from aione_lab.thresholds.params import CUSTOM, Thresholds
from aione_lab.units import HOUR_MS, MINUTE_MS


def check_kind(argument: str, value: object, kind: type) -> None:
    """InputError unless ``value`` is a ``kind``."""
    if not isinstance(value, kind):
        raise InputError.of(argument, value, f"must be a {kind.__name__} object")


def rules_record(settings: Settings, costs: Costs, step_ms: int, spec: FeatureSpec | None = None) -> np.ndarray:
    """Array (1,) of RULES for bars of ``step_ms``; own factors of ``spec`` bring their weights."""
    check_kind("settings", settings, Settings)
    check_kind("costs", costs, Costs)
    rules = np.zeros(1, RULES)
    for name in RULES.names or ():
        if name in Settings.model_fields and name not in ("weights", "target_shares"):
            rules[name] = getattr(settings, name)
    own = [] if spec is None else [factor.weight for factor in spec.factors]
    weights = [*(getattr(settings.weights, factor) for factor in FACTORS), *own]
    rules["weights"] = [*weights, *[0.0] * (CUSTOM - len(own))]
    rules["cooldown_ms"] = settings.cooldown_period * 1000
    rules["excluded_hours"] = sum(1 << hour for hour in settings.exclude_hours)
    # A time-out shorter than a bar is one bar.
    rules["max_holding_bars"] = max(1, settings.max_holding_minutes * MINUTE_MS // step_ms)
    rules["limit_entry"] = settings.entry == "limit"
    rules["target_shares"][0, : len(settings.target_shares)] = settings.target_shares
    rules["target_first"] = settings.both_touched == "target"
    rules["risk_sizing"] = settings.sizing == "risk"
    rules["fee"] = costs.fee
    rules["maker_fee"] = costs.fee if costs.maker_fee is None else costs.maker_fee
    rules["slippage"] = costs.slippage_bps / 10_000
    rules["tick_size"] = costs.tick_size
    rules["lot_size"] = costs.lot_size
    rules["step_ms"] = step_ms
    rules["funding_interval_ms"] = costs.funding_hours * HOUR_MS
    return rules


def limits_record(thresholds: Thresholds, spec: FeatureSpec) -> np.ndarray:
    """Array (1,) of LIMITS, own triggers of ``spec`` included: as ``thresholds.custom`` says, else as declared.

    Raises InputError where ``thresholds.custom`` names a trigger that ``spec`` does not have.
    """
    check_kind("thresholds", thresholds, Thresholds)
    limits = thresholds.record()
    declared = {trigger.name: trigger for trigger in spec.triggers}
    for name in thresholds.custom:
        if not declared:
            raise InputError.of("Thresholds.custom", name, "the FeatureSpec declares no trigger of its own")
        if name not in declared:
            raise InputError.unknown("Thresholds.custom", name, declared)
    limits["custom_count"] = len(declared)
    limits["custom_first"] = 2 * len(spec.factors)
    for i, (name, trigger) in enumerate(declared.items()):
        column = "custom_least" if trigger.relation == ">=" else "custom_most"
        limits[column][0, i] = thresholds.custom.get(name, trigger.threshold)
    return limits


def params_record(
    thresholds: Thresholds, interval: str, spec: FeatureSpec, settings: Settings, costs: Costs
) -> np.ndarray:
    """Array (1,) of PARAMS: all that steers a step."""
    check_kind("spec", spec, FeatureSpec)
    params = np.zeros(1, PARAMS)
    params["spec"] = spec.record(interval)
    params["rules"] = rules_record(settings, costs, int(params["spec"]["step_ms"][0]), spec)
    params["limits"] = limits_record(thresholds, spec)
    return params
