"""Results of a run: the recorder, which writes the run folder, and figures computed from its files."""
