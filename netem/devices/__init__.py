"""Devices: how long a peer's training steps take."""
