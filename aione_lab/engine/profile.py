"""Volume profile: where the volume of the last bars was traded.

Typical prices of the last ``profile_window`` bars fall into ``profile_bins`` equal bins between their
lowest and highest, weighted by volume; refreshed when the absolute bar number + 1 is divisible by
``profile_refresh``, so that it does not depend on where the data began. The point of control is the
middle of the fullest bin (the lower one of equals); the value area grows from it towards the fuller
neighbour until it holds ``value_area`` of the volume. Source: Steidlmayer's Market Profile, with
volume in place of time.
"""

from __future__ import annotations

import math

from aione_lab.engine.rings import RINGS
from aione_lab.jit import njit


@njit
def profile_push(profile, ring, typical, volume, spec, number, row):
    """Add a bar, refresh when due, and fill ``poc, value_low, value_high`` of ``row``."""
    size = spec.profile_window
    # The place in the ring follows the absolute bar number: sums below run in the same order always.
    ring[RINGS.profile_typical + number % size] = typical
    ring[RINGS.profile_volume + number % size] = volume
    profile.count += 1
    if profile.count >= size and (number + 1) % spec.profile_refresh == 0:
        _refresh(profile, ring, size, spec.profile_bins, spec.value_area)
    row.poc = profile.poc
    row.value_low = profile.value_low
    row.value_high = profile.value_high


@njit
def _refresh(profile, ring, size, bins, share):
    low = high = ring[RINGS.profile_typical]
    for i in range(1, size):
        low = min(low, ring[RINGS.profile_typical + i])
        high = max(high, ring[RINGS.profile_typical + i])
    width = (high - low) / bins
    if width <= 0.0:
        profile.poc = profile.value_low = profile.value_high = low
        return
    for b in range(bins):
        profile.bins[b] = 0.0
    total = 0.0
    per_width = 1.0 / width
    for i in range(size):
        # Prices on ticks often lie on the edge of a bin: rounding noise must not decide which.
        b = min(int((ring[RINGS.profile_typical + i] - low) * per_width + 1e-9), bins - 1)
        profile.bins[b] += ring[RINGS.profile_volume + i]
        total += ring[RINGS.profile_volume + i]
    peak = 0
    for b in range(1, bins):
        if profile.bins[b] > profile.bins[peak]:
            peak = b
    below = peak
    above = peak
    held = profile.bins[peak]
    while held < share * total and (below > 0 or above < bins - 1):
        down = profile.bins[below - 1] if below > 0 else -1.0
        up = profile.bins[above + 1] if above < bins - 1 else -1.0
        if up > down:
            above += 1
            held += up
        else:
            below -= 1
            held += down
    profile.poc = low + (peak + 0.5) * width
    profile.value_low = low + below * width
    profile.value_high = low + (above + 1) * width


@njit
def reset_profile(profile):
    """Forget the bars and the profile."""
    profile.count = 0
    profile.poc = math.nan
    profile.value_low = math.nan
    profile.value_high = math.nan
