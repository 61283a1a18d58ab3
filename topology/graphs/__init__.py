"""Graphs: made by name, read from files, or given as networkx graphs."""
