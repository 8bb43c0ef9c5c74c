"""The symbols the simulated exchange lists by default, and what is planted in them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from aione_lab.units import parse_symbol

FEE_PER_SIDE = 0.0005
"""Taker fee (a share of the notional) that the stated net figures pay on entry and on exit."""


def _reciprocal(step: float) -> float:
    if abs(1 / step - round(1 / step)) > 1e-6 / step:
        raise ValueError("must be one divided by a whole number, such as 0.01 or 0.5")
    return step


Step = Annotated[float, Field(gt=0, le=1), AfterValidator(_reciprocal)]


class Effect(BaseModel):
    """A planted effect: when it fires, what follows, how often. The price is a martingale but for this.

    ``rebound`` fires at the close of a bar whose volume is ``volume_z`` standard deviations above the previous
    50 bars, whose RSI 14 is at most ``rsi`` and whose close lies ``stretch`` ATRs or more below the 30-bar VWAP.
    ``breakout`` fires where the close crosses the high (low) of the previous 50 bars on such a volume. Then a
    move of ``size_atr`` ATRs of the signal bar (up; for a downward break down) is added over the next
    ``horizon`` minutes, strongest at first, fading linearly. It does not fire again while it lasts. Rebounds are
    paid for by ``falls_per_day`` sudden falls at random times, of the size that leaves no drift in the long run.
    ATR and RSI are Wilder's over 14 bars.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["rebound", "breakout"]
    size_atr: float = Field(gt=0, le=30)
    horizon: int = Field(default=40, ge=2, le=240)
    volume_z: float = Field(default=3.0, ge=0)
    rsi: float = Field(default=30.0, gt=0, lt=100)
    stretch: float = Field(default=2.5, ge=0)
    falls_per_day: float = Field(default=0.0, ge=0, le=48)


class SymbolSpec(BaseModel):
    """One listed symbol. ``atr`` is the typical one-minute ATR/close, ``turnover`` quote units a minute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: Annotated[str, AfterValidator(parse_symbol)]
    price: float = Field(gt=0)
    tick: Step
    lot: Step
    atr: float = Field(gt=0, le=0.02)
    correlation: float = Field(ge=0, le=0.99, description="with the market factor")
    turnover: float = Field(gt=0)
    trade: float = Field(default=2000.0, gt=0, description="typical quote size of one trade")
    bursts: float = Field(default=5.0, ge=0, le=48, description="jumps of its own a day, either way")
    effect: Effect | None = None


class Truth(BaseModel):
    """What is planted in a symbol and what it is worth: the answer that research on it has to find.

    ``gross_atr`` is the expected move from the signal's close to ``horizon`` minutes later in ATRs of the signal
    bar. ``net`` is the expected return of buying (for a downward break: selling) at the next open and leaving
    at the close ``horizon`` minutes later, after ``FEE_PER_SIDE`` twice, as a share of the price; ``per_day`` is
    how often that happens. Both are long-run averages of the default universe, rounded, None for another spec.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbol: str
    effect: Effect | None
    rule: str
    horizon: int
    gross_atr: float
    net: float | None
    per_day: float | None


DEFAULT_SYMBOLS: tuple[SymbolSpec, ...] = (
    SymbolSpec(symbol="BTCUSDT", price=95_000, tick=0.1, lot=0.001, atr=0.00048, correlation=0.985, turnover=7e6),
    SymbolSpec(symbol="ETHUSDT", price=3_300, tick=0.01, lot=0.001, atr=0.0010, correlation=0.80, turnover=6e6),
    SymbolSpec(symbol="BNBUSDT", price=700, tick=0.01, lot=0.01, atr=0.0007, correlation=0.74, turnover=4e5),
    SymbolSpec(symbol="SOLUSDT", price=190, tick=0.01, lot=0.01, atr=0.00118, correlation=0.78, turnover=1.5e6),
    SymbolSpec(symbol="XRPUSDT", price=2.3, tick=0.0001, lot=0.1, atr=0.0010, correlation=0.74, turnover=6e5),
    SymbolSpec(
        symbol="LINKUSDT",
        price=20,
        tick=0.001,
        lot=0.01,
        atr=0.0012,
        correlation=0.78,
        turnover=2e5,
        effect=Effect(kind="rebound", size_atr=5.0, volume_z=4.0, falls_per_day=5.0),
    ),
    SymbolSpec(symbol="AVAXUSDT", price=36, tick=0.001, lot=1, atr=0.0015, correlation=0.74, turnover=1.3e5),
    SymbolSpec(
        symbol="DOTUSDT",
        price=6.7,
        tick=0.001,
        lot=0.1,
        atr=0.0014,
        correlation=0.70,
        turnover=1.2e5,
        effect=Effect(kind="rebound", size_atr=3.0, volume_z=4.0, falls_per_day=6.0),
    ),
    SymbolSpec(
        symbol="SUIUSDT",
        price=4.1,
        tick=0.0001,
        lot=0.1,
        atr=0.0017,
        correlation=0.66,
        turnover=4e5,
        effect=Effect(kind="breakout", size_atr=5.0, volume_z=4.0),
    ),
    SymbolSpec(symbol="DOGEUSDT", price=0.32, tick=0.00001, lot=1, atr=0.0014, correlation=0.72, turnover=7e5),
    SymbolSpec(
        symbol="1000PEPEUSDT",
        price=0.02,
        tick=0.0000001,
        lot=1,
        atr=0.0022,
        correlation=0.62,
        turnover=5e5,
        bursts=16.0,
    ),
    SymbolSpec(symbol="ENAUSDT", price=0.95, tick=0.0001, lot=1, atr=0.0025, correlation=0.62, turnover=1.8e5),
    SymbolSpec(
        symbol="XMRUSDT", price=195, tick=0.01, lot=0.001, atr=0.0013, correlation=0.24, turnover=1.2e4, trade=400
    ),
    SymbolSpec(
        symbol="USDCUSDT", price=1.0, tick=0.00001, lot=1, atr=0.00004, correlation=0.02, turnover=1e5, bursts=2.0
    ),
)
"""BTCUSDT is the market's face; 1000PEPEUSDT is the decoy: bursts as often as a planted symbol, nothing after."""

_MEASURED: dict[str, tuple[float, float]] = {
    "LINKUSDT": (0.0098, 5.0),
    "DOTUSDT": (0.0056, 2.8),
    "SUIUSDT": (0.0098, 5.7),
}
"""Net return a trade and trades a day of the rule on the default symbols, means over 40 seeds of 90 days."""


def truth(spec: SymbolSpec) -> Truth:
    """The answer for ``spec``; see ``Truth``."""
    effect = spec.effect
    if effect is None:
        return Truth(
            symbol=spec.symbol,
            effect=None,
            rule="nothing is planted: no rule earns its costs here",
            horizon=0,
            gross_atr=0.0,
            net=None,
            per_day=None,
        )
    volume = f"volume z-score over the previous 50 bars >= {effect.volume_z:g}"
    if effect.kind == "rebound":
        rule = (
            f"{volume}, RSI 14 <= {effect.rsi:g} and close at least {effect.stretch:g} ATR below the 30-bar VWAP: "
            f"up {effect.size_atr:g} ATR over the next {effect.horizon} minutes"
        )
    else:
        rule = (
            f"{volume} and a close that crosses the high (low) of the previous 50 bars: "
            f"{effect.size_atr:g} ATR further up (down) over the next {effect.horizon} minutes"
        )
    net, per_day = _MEASURED.get(spec.symbol, (None, None)) if spec in DEFAULT_SYMBOLS else (None, None)
    return Truth(
        symbol=spec.symbol,
        effect=effect,
        rule=rule,
        horizon=effect.horizon,
        gross_atr=effect.size_atr,
        net=net,
        per_day=per_day,
    )
