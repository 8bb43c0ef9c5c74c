"""Asset classes: which few thresholds a kind of asset changes, found from the base asset's name.

Precedence, field by field: what a calibrated set of the symbol sets, then what its asset class sets,
then the table's (or the adaptive) default. Classes are tried in their order, the specific ones first;
the last one has to match everything.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from aione_lab.errors import InputError
from aione_lab.settings import Config
from aione_lab.thresholds.params import Thresholds
from aione_lab.units import parse_symbol

ClassName = Annotated[str, Field(pattern=r"[a-z][a-z0-9_]{0,19}$")]

# BUSD and TUSD are left out: hardly anything is quoted in them, and BNBUSD_PERP and DOTUSD_PERP end like them.
QUOTES = ("USDT", "USDC", "FDUSD", "USDE", "DAI", "USD", "EUR", "TRY", "BTC", "ETH", "BNB")
_EXPIRY = re.compile(r"_(\d{6}|PERP)$")
_MULTIPLIER = re.compile(r"1(?:0{3,7}|M)(?=[A-Z])")


def base_asset(symbol: str, quotes: tuple[str, ...] = QUOTES) -> str:
    """Base asset of ``symbol``: BTC of BTCUSDT, PEPE of 1000PEPEUSDT, BTC of BTCUSD_PERP.

    The longest of ``quotes`` that leaves something before it is cut off, and a contract's expiry and a
    multiplier (1000, 1000000, 1M) with it. A symbol without a known quote is its own base asset.
    Raises InputError for what is no symbol.
    """
    name = _EXPIRY.sub("", parse_symbol(symbol))
    fitting = [quote for quote in quotes if name.endswith(quote) and len(name) > len(quote)]
    if fitting:
        name = name[: -len(max(fitting, key=len))]
    return _MULTIPLIER.sub("", name, count=1) if _MULTIPLIER.match(name) else name


class AssetClass(Config):
    """One class: the base assets that ``pattern`` matches in full, and the thresholds it sets."""

    name: ClassName
    pattern: str = Field(description="regular expression; must match the whole base asset")
    thresholds: Thresholds = Field(default_factory=Thresholds, description="only the fields that are set count")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from None
        return value

    def matches(self, base: str) -> bool:
        """Whether the base asset belongs to the class."""
        return re.fullmatch(self.pattern, base) is not None


def _any(names: str) -> str:
    return "|".join(names.split())


# What the classes set was held against the alert and BUY rates of real candles; the classes that most
# symbols fall into set nothing, because the adaptive defaults were chosen on just those symbols.
DEFAULTS = (
    # A peg: what moves is the spread, so one more reason is asked for.
    AssetClass(
        name="stable",
        pattern=_any("USDT USDC FDUSD BUSD TUSD USDP DAI USDE USD1 PYUSD USTC EURI? AEUR"),
        thresholds=Thresholds(min_reasons_for_alert=3),
    ),
    # Overshoots: RSI extremes come later, stops need air, and moves that go go further.
    AssetClass(
        name="meme",
        pattern=_any(
            r"DOGE SHIB PEPE FLOKI BONK WIF BOME MEME TURBO NEIRO(?:ETH)? POPCAT MEW MOODENG PNUT GOAT BRETT "
            r"PEOPLE BABYDOGE SATS RATS ORDI CAT DOGS HMSTR BAN ACT CHILLGUY FARTCOIN TRUMP MELANIA SPX MOG "
            r"\w*(?:INU|DOGE|PEPE|ELON)"
        ),
        thresholds=Thresholds(rsi_oversold=27.0, rsi_overbought=73.0, tp_mult=3.3, sl_mult=1.1),
    ),
    # Thin books: a volume spike says less, so it has to be larger.
    AssetClass(
        name="nft",
        pattern=_any("APE BLUR LOOKS RARE SUPER PENGU ME MAGIC NFT SUDO X2Y2 TNSR"),
        thresholds=Thresholds(vol_z_threshold=3.0),
    ),
    AssetClass(
        name="metaverse",
        pattern=_any("SAND MANA AXS ENJ GALA ALICE TLM ILV YGG HIGH PIXEL PORTAL VOXEL GMT SLP RON(?:IN)? BIGTIME"),
        thresholds=Thresholds(vol_z_threshold=3.0),
    ),
    # News-driven trends: let the first target be a little further away.
    AssetClass(
        name="ai",
        pattern=_any(
            "FET AGIX OCEAN TAO RENDER RNDR WLD ARKM NFP PHB AI AI16Z AIXBT VIRTUAL IO GRASS KAITO GRT NMR COOKIE"
        ),
        thresholds=Thresholds(tp_mult=3.3),
    ),
    AssetClass(
        name="defi",
        pattern=_any(
            "UNI AAVE MKR SKY COMP CRV SNX SUSHI CAKE 1INCH YFI LDO PENDLE DYDX GMX RUNE JUP RAY ENA ETHFI EIGEN "
            "CVX BAL KNC BANCOR LQTY SSV RPL INJ JTO ONDO MORPHO SPELL UMA ZRX HYPE"
        ),
    ),
    # Majors with a spot market deep enough to lead the perpetual.
    AssetClass(name="spot", pattern=_any("BTC WBTC ETH BNB")),
    # Large coins whose price is made on the perpetual, and the indices that exist only there.
    AssetClass(
        name="futures",
        pattern=_any(
            "SOL XRP ADA AVAX DOT LINK LTC BCH ETC TRX XLM TON NEAR ATOM APT SUI ARB OP FIL ICP HBAR XMR ZEC "
            "MATIC POL SEI TIA ALGO EOS VET BTCDOM DEFI ALL"
        ),
    ),
    AssetClass(name="other", pattern=r".*"),
)


class AssetClasses(Config):
    """The classes in the order in which they are tried, and the quote assets that symbols end in.

    ``AssetClasses.load(path)`` reads them from TOML (a ``[[classes]]`` table each) or JSON.
    """

    quotes: tuple[Annotated[str, Field(pattern=r"[A-Z0-9]{2,10}$")], ...] = QUOTES
    classes: tuple[AssetClass, ...] = DEFAULTS

    @field_validator("classes")
    @classmethod
    def _usable(cls, value: tuple[AssetClass, ...]) -> tuple[AssetClass, ...]:
        names = [entry.name for entry in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"class {name!r} is listed twice")
        if not value or value[-1].pattern != ".*":
            raise ValueError("the last class must match everything: pattern '.*'")
        return value

    def of(self, symbol: str) -> AssetClass:
        """The first class whose pattern matches the base asset of ``symbol``."""
        base = base_asset(symbol, self.quotes)
        return next(entry for entry in self.classes if entry.matches(base))


DEFAULT_CLASSES = AssetClasses()

Source = Literal["calibrated", "asset_class", "default"]


def asset_class(symbol: str, classes: AssetClasses = DEFAULT_CLASSES) -> str:
    """Name of the asset class of ``symbol``; InputError for what is no symbol."""
    return classes.of(symbol).name


def thresholds_for(
    symbol: str, calibrated: Thresholds | None = None, classes: AssetClasses = DEFAULT_CLASSES
) -> Thresholds:
    """The thresholds of ``symbol``, field by field: calibrated, else its asset class, else the default.

    A field counts as set when it was given, be it with its default value. ``meta`` of the result tells
    ``source`` ("calibrated", "asset_class", "default") and ``asset_class``, beside what the calibrated
    set's own ``meta`` says. Raises InputError where the fields do not go together.
    """
    if calibrated is not None and not isinstance(calibrated, Thresholds):
        raise InputError.of("calibrated", calibrated, "must be a Thresholds object or None")
    entry = classes.of(symbol)
    fields = _set_fields(entry.thresholds)
    source: Source = "asset_class" if fields else "default"
    meta: dict[str, Any] = {}
    if calibrated is not None:
        source = "calibrated"
        fields |= _set_fields(calibrated)
        meta = dict(calibrated.meta or {})
    return Thresholds(**fields, meta={**meta, "source": source, "asset_class": entry.name})


def _set_fields(thresholds: Thresholds) -> dict[str, Any]:
    return {name: getattr(thresholds, name) for name in thresholds.model_fields_set - {"meta"}}
