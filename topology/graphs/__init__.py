"""Graphs: by name, from files, or given as networkx graphs."""
