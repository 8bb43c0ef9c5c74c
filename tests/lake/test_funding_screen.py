"""Which rows of funding files are kept: every row read is new, same, revised or refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from lake_files import START
from lake_files import lake as lake  # fixture

from aione_lab.lake import Lake

HOUR = 3_600_000


def rates(*stamps: int) -> pd.DataFrame:
    return pd.DataFrame({"timestamp": stamps, "funding_rate": np.arange(1, len(stamps) + 1) / 1e4})


@pytest.mark.parametrize(
    "stamps", [(START, START + 5), (START + 5, START), (START - 20_000, START + 29_999), (START,) * 2]
)
def test_two_rates_of_one_minute_are_one_payment(lake: Lake, stamps: tuple[int, int]) -> None:
    (file,) = lake.import_funding(rates(*stamps, START + 8 * HOUR), symbol="BTCUSDT").files
    assert (file.rows_read, file.rows_new, file.rows_refused) == (3, 2, 1)
    assert file.refused[0].reason == "nearest to the same minute as a later row, which is kept"
    assert lake.funding("BTCUSDT").index.asi8.tolist() == [max(stamps), START + 8 * HOUR]


@pytest.mark.parametrize("unit", [1, 1000])
@pytest.mark.parametrize("odd", [0, -1, 2**62])
def test_a_broken_stamp_does_not_change_the_unit_of_the_others(lake: Lake, unit: int, odd: int) -> None:
    times = [(START + hour * HOUR) // unit for hour in range(0, 400, 8)]
    (file,) = lake.import_funding(rates(odd, *times), symbol="BTCUSDT").files
    assert (file.rows_new, file.rows_refused) == (50, 1)
    assert lake.funding("BTCUSDT").index.asi8.tolist() == [START + hour * HOUR for hour in range(0, 400, 8)]
