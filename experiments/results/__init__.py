"""What a run leaves behind: the recorder that writes the run folder, and what is computed from its files."""
