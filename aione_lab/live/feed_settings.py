"""What steers a feed from an exchange."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aione_lab.settings import Config


class FeedSettings(Config):
    """How an ``ExchangeFeed`` talks to its exchange; the defaults suit one-minute candles of Binance."""

    streams_per_connection: Annotated[int, Field(ge=1, le=200)] = Field(200, description="symbols on one websocket")
    patience_seconds: Annotated[float, Field(ge=0.0, le=30.0)] = Field(
        2.0, description="how long after its end a bar may still come by websocket before it is asked for"
    )
    silence_seconds: Annotated[float, Field(ge=5.0, le=600.0)] = Field(
        60.0, description="a websocket on which nothing comes for so long is made anew"
    )
    backfill_workers: Annotated[int, Field(ge=1, le=16)] = Field(4, description="requests at a time at most")
    skew_seconds: Annotated[float, Field(ge=10.0, le=86_400.0)] = Field(
        600.0, description="how often the exchange's clock is compared with ours"
    )
