"""Figures of graphs, matrices and schedules: spectra, distances, contraction, the time of a round."""
