"""Networks: which links a graph gets, from a uniform network to measured regions, presets and traces."""
