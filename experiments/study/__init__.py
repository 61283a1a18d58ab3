"""The page of a sweep: cells with intervals, differences between them, and convergence against connectivity."""
