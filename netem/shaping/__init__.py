"""Shaping: the instants at which a peer's bytes leave and arrive, in real time and with shared segments."""
