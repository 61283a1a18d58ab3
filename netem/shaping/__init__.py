"""Shaping: when the bytes that a peer offers leave and arrive, in real time and with shared segments."""
