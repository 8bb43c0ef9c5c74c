"""Every structured dtype of the engine, documented field by field, and the names behind the codes.

All dtypes are ``np.record`` types: kernels and plain Python (JIT off) read them as ``row.rsi``, so no
field may have the name of a numpy attribute (mean, flags, …), which would hide it from plain Python.
Prices are quote currency, volumes base units, times UTC milliseconds of a bar's open.
NaN means *not known*: warm-up, or a source that does not have it.

What a user adds (``custom.py``) has spare places: of FEATURES, of the factors' arrays, and bits after the reasons.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from aione_lab.thresholds.params import CUSTOM, LIMITS

LAYOUT = 3
"""Version of the state's layout: a snapshot of another version is refused."""

LEVELS = 64  # daily swing levels kept
FACTORS_COUNT = 9 + CUSTOM  # the built-in ones, then a user's own; unused: weight 0, strength NaN, contribution 0
CUSTOM_SLOTS = 3 * CUSTOM  # two numbers a factor, then one a trigger

REASONS = (
    "VOLUME_SPIKE",
    "RSI_OVERSOLD",
    "RSI_OVERBOUGHT",
    "RSI_BULLISH_DIVERGENCE",
    "RSI_BEARISH_DIVERGENCE",
    "BREAKOUT_UP",
    "BREAKOUT_DOWN",
    "NEAR_SUPPORT",
    "NEAR_RESISTANCE",
    "VWAP_DEVIATION",
    "VOLATILITY_SPIKE",
    "LOW_VOLATILITY",
)
"""Stage1 reasons: bit i of ``reasons`` is REASONS[i]. The last one vetoes and is never counted.

The bits after them are the triggers that a FeatureSpec adds: ``spec.reasons`` names them all.
"""

SIGNALS = ("NONE", "NORMAL", "ALERT")
SUPPRESSED = ("", "low_volatility", "volume", "hour", "cooldown")
FACTORS = (
    "volume",
    "rsi",
    "macd",
    "ema_cross",
    "stochastic",
    "orderbook",
    "vwap",
    "velocity",
    "volume_profile",
)
READINGS = ("continuation", "reversal")
SIDES = {1: "LONG", -1: "SHORT", 0: ""}
TRENDS = {1: "UPTREND", -1: "DOWNTREND", 0: "RANGE"}
VOLATILITIES = ("LOW", "NORMAL", "HIGH")
SCENARIOS = (
    "RANGE_BOUND",
    "BREAKOUT_WITH_VOLUME",
    "REVERSAL_FROM_SUPPORT",
    "REVERSAL_FROM_RESISTANCE",
    "MOMENTUM",
    "HIGH_VOLATILITY",
    "AGAINST_THE_MARKET",
    "CAPITULATION",
)
FLAGS = ("VOLATILITY", "TREND_REVERSAL", "AGAINST_THE_MARKET", "SUSPECTED_MANIPULATION", "LOW_LIQUIDITY")
RECOMMENDATIONS = ("", "BUY", "WAIT_FOR_CONFIRMATION", "AVOID", "AVOID_HIGH_RISK", "SELL")
DETAILS = ("", "all_gates_met", "manipulation", "liquidity", "weak_score", "risk_reward", "room", "confidence")
TARGETS_COUNT = 3
FILLS_COUNT = 4  # fills that can close one trade: three targets, and the end of what runs on

EXITS = ("", "stop", "target", "time_out", "gap", "trailing", "opposite", "liquidation")
"""Why a fill left a trade; ``trailing`` is a stop that had moved, to break-even or behind the price."""


def record_dtype(*fields: tuple[Any, ...]) -> np.dtype[Any]:
    """An aligned dtype whose elements are ``np.record``."""
    return np.dtype((np.record, np.dtype(list(fields), align=True)))


BAR = record_dtype(
    ("timestamp", "i8"),
    ("open", "f8"),
    ("high", "f8"),
    ("low", "f8"),
    ("close", "f8"),
    ("volume", "f8"),
    ("quote_volume", "f8"),
    ("taker_buy_volume", "f8"),
    ("reference_close", "f8"),  # close of the reference's bar of the same time; NaN: none
    ("funding_rate", "f8"),  # rate paid at a stamp inside this bar; NaN: no stamp known
)
"""One closed candle with what belongs to its time."""

FEATURE_NAMES = (
    "close",
    "price_change",  # close ÷ close sr_window bars ago − 1
    "rsi",
    "rsi_mean",
    "atr",
    "atr_pct",  # atr ÷ close
    "atr_7d",  # mean of atr_pct over up to 7 days, this bar excluded
    "atr_7d_days",  # days behind atr_7d so far (0…7)
    "macd_hist",  # in ATRs
    "macd_hist_change",  # against the previous bar
    "ema_diff",  # EMA fast − EMA slow, in ATRs
    "stoch_k",
    "stoch_d",
    "volume",
    "volume_mean",  # over the previous bars
    "volume_std",
    "volume_z",
    "vwap",
    "vwap_dev",  # close ÷ vwap − 1
    "true_range",
    "range_burst",  # true range ÷ its mean over the previous bars
    "body",  # |close − open| ÷ true range
    "sr_high",  # of the previous sr_window bars
    "sr_low",
    "daily_high",  # rolling 24 h
    "daily_low",
    "daily_range",
    "velocity",  # move over velocity_window bars, in ATRs
    "acceleration",  # velocity − velocity velocity_window bars ago
    "poc",  # point of control of the volume profile
    "value_low",
    "value_high",
    "taker_imbalance",  # 2 × taker buys ÷ volume − 1 of the bar
    "flow_imbalance",  # the same over flow_window bars
    "correlation",
    "relative_strength",  # log return over the correlation window less the reference's
    "market_drift",  # the reference's log return over it, in its standard deviations
    "trend_1",  # −1, 0, 1 on the first higher timeframe
    "trend_1_strength",  # (fast − slow) ÷ higher ATR
    "trend_2",
    "trend_2_strength",
    "hour_atr_pct",
    "hour_quote_volume",
    "swing_high",  # last confirmed
    "swing_low",
    "bullish_divergence",  # RSI points gained while price made a lower low; NaN: no swing confirmed here
    "bearish_divergence",
    "prev_day_high",
    "prev_day_low",
    "support",  # nearest level below the close
    "resistance",
    "major_support",  # without the sr_window extremes
    "major_resistance",
    "support_distance",  # in ATRs
    "resistance_distance",
    "breakout_up",  # level crossed upwards by this close; NaN: none
    "breakout_down",
    "level_days",  # completed days behind the daily swing levels
    "warm",  # 1 when the windows of up to a day are full
)
"""The columns of the features, in order; each is explained where it is computed (features.py)."""

FEATURES = record_dtype(*((name, "f8") for name in FEATURE_NAMES), ("custom", "f8", (CUSTOM_SLOTS,)))
"""The features of a bar, and the numbers that own factors and triggers gave, packed from the left."""

SIGNAL = record_dtype(
    ("timestamp", "i8"),
    ("reasons", "i8"),  # bit mask over REASONS, then own triggers
    ("signal", "i1"),  # index into SIGNALS
    ("suppressed", "i1"),  # index into SUPPRESSED
    ("recommendation", "i1"),  # index into RECOMMENDATIONS
    ("side", "i1"),  # of the assessment: 1, −1; 0 where there is none
    ("position", "i1"),  # side held at the close
    ("confidence", "f8"),  # 0 on bars without an alert
    ("low_gate", "f8"),  # the adaptive limits as resolved on this bar
    ("high_gate", "f8"),
    ("vwap_threshold", "f8"),
    ("vol_z_threshold", "f8"),
    ("equity", "f8"),  # cash and the open position at the close, costs so far included
)
"""What every bar gets."""

ASSESSMENT = record_dtype(
    ("timestamp", "i8"),
    ("price", "f8"),
    ("atr", "f8"),
    ("trend", "i8"),
    ("volatility", "i8"),
    ("scenario", "i8"),
    ("anomalies", "i8"),  # bit mask over FLAGS
    ("independent", "i8"),  # 1, 0; −1: correlation unknown
    ("correlation", "f8"),
    ("relative_strength", "f8"),
    ("support", "f8"),
    ("resistance", "f8"),
    ("next_major", "f8"),
    ("side", "i8"),
    ("reading", "i8"),
    ("strengths", "f8", (FACTORS_COUNT,)),  # of the chosen side and reading; NaN: unavailable
    ("contributions", "f8", (FACTORS_COUNT,)),  # they add up to score exactly, in any order
    ("score", "f8"),
    ("coverage", "f8"),
    ("confirmed", "i8"),  # factors at or above cluster_strength
    ("clustered", "i8"),
    ("lifted", "f8"),  # max(0, score), lifted where clustered
    ("volatile_factor", "f8"),  # discounts: confidence = lifted × volatile_factor × market_factor
    ("market_factor", "f8"),
    ("confidence", "f8"),
    ("stop", "f8"),
    ("targets", "f8", (3,)),  # NaN: dropped as a duplicate
    ("entry_low", "f8"),
    ("entry_high", "f8"),
    ("risk_reward", "f8"),
    ("room", "f8"),  # ATRs to the nearest opposing level; inf: none known
    ("recommendation", "i8"),
    ("detail", "i8"),
)
"""What Stage2 finds on an ALERT bar."""

TRADE = record_dtype(
    ("signal_time", "i8"),
    ("entry_time", "i8"),
    ("exit_time", "i8"),  # of the last fill
    ("side", "i8"),
    ("exit_reason", "i8"),  # of the last fill, index into EXITS
    ("ambiguous", "i8"),  # 1: stop and target both touched in one bar, which came first is not known
    ("resolved", "i8"),  # 1: both were touched, and bars of a finer interval told which came first
    ("bars", "i8"),  # bars held, the entry bar counted
    ("funding_missing", "i8"),  # funding stamps crossed whose rate is not known
    ("funding_known", "i8"),
    ("exits", "i8"),  # fills that closed it, 1 to 4, see exit_times and the fields after it
    ("quantity", "f8"),
    ("entry_price", "f8"),
    ("exit_price", "f8"),  # mean of the fills, by quantity
    ("stop", "f8"),  # at the entry
    ("last_stop", "f8"),  # where break-even and trailing had moved it
    ("targets", "f8", (TARGETS_COUNT,)),
    ("entry_fee", "f8"),
    ("fees", "f8"),  # of the entry and all exits
    ("funding", "f8"),  # paid (−) or received (+); unknown stamps are not in it
    ("pnl", "f8"),  # net of fees and known funding
    ("pnl_other", "f8"),  # the same had the other of stop and targets filled first
    ("r_multiple", "f8"),  # pnl ÷ (quantity × |entry − stop|)
    ("mae", "f8"),  # worst excursion as a share of the entry price, ≤ 0
    ("mfe", "f8"),  # best excursion, ≥ 0
    ("confidence", "f8"),
    ("exit_times", "i8", (FILLS_COUNT,)),
    ("exit_reasons", "i8", (FILLS_COUNT,)),
    ("exit_prices", "f8", (FILLS_COUNT,)),
    ("exit_quantities", "f8", (FILLS_COUNT,)),
    ("exit_fees", "f8", (FILLS_COUNT,)),
)
"""One closed trade. A ladder's partial closes are fills of one trade; of the arrays the first ``exits`` count."""

SPEC = record_dtype(
    ("rsi_window", "i8"),
    ("rsi_mean_window", "i8"),
    ("atr_window", "i8"),
    ("atr_mean_days", "i8"),
    ("macd_fast", "i8"),
    ("macd_slow", "i8"),
    ("macd_signal", "i8"),
    ("stochastic_window", "i8"),
    ("stochastic_smooth", "i8"),
    ("volume_window", "i8"),
    ("vwap_window", "i8"),
    ("range_window", "i8"),
    ("sr_window", "i8"),
    ("velocity_window", "i8"),
    ("flow_window", "i8"),
    ("profile_window", "i8"),
    ("profile_bins", "i8"),
    ("profile_refresh", "i8"),
    ("value_area", "f8"),
    ("correlation_window", "i8"),
    ("trend_fast", "i8"),
    ("trend_slow", "i8"),
    ("trend_min", "f8"),
    ("swing_bars", "i8"),
    ("divergence_bars", "i8"),
    ("level_days", "i8"),
    ("level_swing_days", "i8"),
    ("step_ms", "i8"),
    ("day_bars", "i8"),
    ("atr_mean_bars", "i8"),
    ("higher_1_ms", "i8"),
    ("higher_2_ms", "i8"),
    ("hour_is_first", "i8"),  # 1: the first higher timeframe is the hour, else the second
)

RULES = record_dtype(
    ("cooldown_ms", "i8"),
    ("excluded_hours", "i8"),  # bit h: no alerts in UTC hour h
    ("min_atr_percent", "f8"),
    ("min_volume_usd", "f8"),
    ("near_level", "f8"),
    ("range_burst", "f8"),
    ("divergence_min_rsi", "f8"),
    ("weights", "f8", (FACTORS_COUNT,)),
    ("context_min_correlation", "f8"),
    ("volatility_low", "f8"),
    ("volatility_high", "f8"),
    ("market_drift", "f8"),
    ("capitulation_volume_z", "f8"),
    ("momentum_velocity", "f8"),
    ("manipulation_volume_z", "f8"),
    ("manipulation_body", "f8"),
    ("low_liquidity_usd", "f8"),
    ("min_cluster", "i8"),
    ("cluster_strength", "f8"),
    ("cluster_lift", "f8"),
    ("volatile_discount", "f8"),
    ("against_market_discount", "f8"),
    ("watch_confidence", "f8"),
    ("min_risk_reward", "f8"),
    ("min_stop", "f8"),
    ("tp_buffer_eps", "f8"),
    ("entry_spread_percent", "f8"),
    ("allow_shorts", "i8"),
    ("limit_entry", "i8"),
    ("entry_depth", "f8"),
    ("entry_valid_bars", "i8"),
    ("target_shares", "f8", (TARGETS_COUNT,)),
    ("break_even", "f8"),
    ("trailing_stop", "f8"),
    ("exit_on_opposite", "i8"),
    ("max_holding_bars", "i8"),
    ("target_first", "i8"),
    ("initial_capital", "f8"),
    ("risk_sizing", "i8"),
    ("position_fraction", "f8"),
    ("risk_fraction", "f8"),
    ("leverage", "f8"),
    ("maintenance_margin", "f8"),
    # costs
    ("fee", "f8"),
    ("maker_fee", "f8"),
    ("slippage", "f8"),  # share of the price
    ("tick_size", "f8"),
    ("lot_size", "f8"),
    ("step_ms", "i8"),
    ("funding_interval_ms", "i8"),
)
"""Settings and costs as the kernels read them."""

PARAMS = record_dtype(("spec", SPEC), ("rules", RULES), ("limits", LIMITS))

# ---- state: what is small; the values of the windows are in the rings ----------------------------

AVERAGE = record_dtype(("value", "f8"), ("count", "i8"))
SUM = record_dtype(("total", "f8"), ("count", "i8"), ("offset", "i8"))
SUMS = record_dtype(("total_x", "f8"), ("total_y", "f8"), ("count", "i8"), ("offset", "i8"))
RANGE = record_dtype(("high", "f8"), ("low", "f8"), ("count", "i8"), ("offset", "i8"))
MOMENTS = record_dtype(
    ("centre", "f8"),  # mean of the running prefix
    ("m2", "f8"),
    ("n", "i8"),  # values in the running prefix
    ("count", "i8"),
    ("offset", "i8"),
)
PAIRS = record_dtype(
    ("n", "f8"),
    ("mean_x", "f8"),
    ("mean_y", "f8"),
    ("m2_x", "f8"),
    ("m2_y", "f8"),
    ("c_xy", "f8"),
    ("count", "i8"),
    ("offset", "i8"),
)
HIGHER = record_dtype(
    ("bars", "i8"),  # base bars in the running higher bar; 0: none, or the stream began in its middle
    ("high", "f8"),
    ("low", "f8"),
    ("quote_volume", "f8"),
    ("fast", AVERAGE),
    ("slow", AVERAGE),
    ("atr", AVERAGE),
    ("prev_close", "f8"),
    ("strength", "f8"),  # of the trend; NaN until there
    ("atr_pct", "f8"),  # ATR ÷ close of the last completed higher bar; NaN until there
    ("last_quote_volume", "f8"),  # of the last completed higher bar; NaN until there
)
SWINGS = record_dtype(
    ("count", "i8"),
    ("place", "i8"),  # where the next bar goes
    ("high_price", "f8"),
    ("high_rsi", "f8"),
    ("high_bar", "i8"),
    ("low_price", "f8"),
    ("low_rsi", "f8"),
    ("low_bar", "i8"),
)
DAILY = record_dtype(
    ("bars", "i8"),  # bars of the running UTC day; 0: none, or the stream began in its middle
    ("high", "f8"),
    ("low", "f8"),
    ("count", "i8"),  # completed days kept
    ("last_day", "i8"),  # number of the newest of them, days since 1970
    ("given_day", "i8"),  # a day told from outside, for a stream that begins in its middle; −1: none
    ("given_high", "f8"),
    ("given_low", "f8"),
    ("highs", "f8", (30,)),
    ("lows", "f8", (30,)),
    ("levels", "f8", (LEVELS,)),  # swing prices, ascending
    ("n_levels", "i8"),
    ("below", "f8"),  # bracket of swing levels around the last close, see levels.py
    ("above", "f8"),
)
PROFILE = record_dtype(
    ("count", "i8"),
    ("poc", "f8"),
    ("value_low", "f8"),
    ("value_high", "f8"),
    ("bins", "f8", (64,)),
)
FEATURE_STATE = record_dtype(
    ("last_time", "i8"),
    ("seen", "i8"),  # bars since the start or the last gap
    ("prev_close", "f8"),
    ("prev_reference", "f8"),
    ("prev_macd_hist", "f8"),
    ("prev_daily_high", "f8"),
    ("prev_daily_low", "f8"),
    ("gain", AVERAGE),
    ("loss", AVERAGE),
    ("atr", AVERAGE),
    ("ema_fast", AVERAGE),
    ("ema_slow", AVERAGE),
    ("macd_signal", AVERAGE),
    ("rsi_mean", SUM),
    ("range_mean", SUM),
    ("stoch_mean", SUM),
    ("vwap", SUMS),  # of typical price × volume, and of volume
    ("flow", SUMS),  # of taker buys, and of volume
    ("stochastic", RANGE),
    ("sr", RANGE),
    ("day", RANGE),
    ("volume", MOMENTS),
    ("pairs", PAIRS),
    ("higher_1", HIGHER),
    ("higher_2", HIGHER),
    ("swings", SWINGS),
    ("daily", DAILY),
    ("profile", PROFILE),
    ("atr_7d", SUM),
)

POSITION = record_dtype(
    ("side", "i8"),  # 0: flat
    ("signal_time", "i8"),
    ("entry_time", "i8"),
    ("bars", "i8"),
    ("leave", "i8"),  # 1: an opposite signal closes it at the next open
    ("funding_missing", "i8"),
    ("funding_known", "i8"),
    ("exits", "i8"),  # fills so far that closed a part
    ("next", "i8"),  # first target not yet filled
    ("entered", "f8"),  # quantity at the entry
    ("quantity", "f8"),  # what of it is still held
    ("entry_price", "f8"),
    ("first_stop", "f8"),
    ("stop", "f8"),
    ("trail", "f8"),  # distance of the trailing stop, quote currency; 0: none
    ("targets", "f8", (TARGETS_COUNT,)),  # NaN: none
    ("parts", "f8", (TARGETS_COUNT,)),  # quantity that each target closes; inf: all that is left
    ("gross", "f8"),  # of the closed parts
    ("entry_fee", "f8"),
    ("fees", "f8"),
    ("funding", "f8"),
    ("funding_unit", "f8"),  # the same for one unit held all along: what the isolated margin has lost or won
    ("worst", "f8"),
    ("best", "f8"),
    ("confidence", "f8"),
    ("exit_times", "i8", (FILLS_COUNT,)),
    ("exit_reasons", "i8", (FILLS_COUNT,)),
    ("exit_prices", "f8", (FILLS_COUNT,)),
    ("exit_quantities", "f8", (FILLS_COUNT,)),
    ("exit_fees", "f8", (FILLS_COUNT,)),
)
ORDER = record_dtype(
    ("side", "i8"),  # 0: none; met by the next bars
    ("signal_time", "i8"),
    ("waited", "i8"),  # bars that a limit order has been waiting
    ("limit", "f8"),  # NaN: at the open, whatever it is
    ("price", "f8"),  # at which it was decided: the close, or the limit
    ("stop", "f8"),
    ("trail", "f8"),
    ("targets", "f8", (TARGETS_COUNT,)),
    ("confidence", "f8"),
)
STAGE_STATE = record_dtype(
    ("last_time", "i8"),
    ("last_close", "f8"),
    ("last_alert", "i8"),  # 0: none yet
    ("cash", "f8"),
    ("order", ORDER),
    ("position", POSITION),
)
STATE = record_dtype(("features", FEATURE_STATE), ("stages", STAGE_STATE))
"""The memory of one symbol, but for its column of the rings (``rings.py``)."""

OUT = record_dtype(
    ("features", FEATURES),
    ("signal", SIGNAL),
    ("assessment", ASSESSMENT),  # meaningful where the signal is ALERT
    ("trade", TRADE),  # meaningful where ``trades`` is 1
    ("trades", "i8"),
    ("entered", "i8"),  # side of an order filled in this bar; 0: none
    ("entry_price", "f8"),
    ("partial", "f8"),  # quantity that targets of a trade still open closed in this bar
    ("partial_price", "f8"),  # of it, the mean; NaN: none
)
"""What one step writes."""
