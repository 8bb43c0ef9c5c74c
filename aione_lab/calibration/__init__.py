"""Choosing thresholds: the search over them, and the choice that does not fall for the luckiest trial."""
