"""Mixing matrices: how heavily each neighbour's model counts."""
