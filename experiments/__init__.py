"""Experiments: peers, topologies and networks together; their configuration, runs, results and pages."""
