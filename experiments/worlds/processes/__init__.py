"""Real time: one operating system process for each peer, started and watched by a launcher."""
