"""The emulated network without training: what was asked of each link against what it delivers."""
