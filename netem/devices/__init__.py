"""Devices: the duration of a peer's training steps."""
