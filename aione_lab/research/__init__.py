"""Studies of signals and trades, and the statistics that keep luck from looking like skill."""
