"""Networks: the links of a graph, from a uniform network to measured regions, presets and traces."""
