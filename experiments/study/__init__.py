"""The page of a sweep: its cells with intervals, differences between them, and convergence against connectivity."""
