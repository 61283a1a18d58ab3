"""Mixing matrices: the weight of each neighbour's model in a round of averaging."""
