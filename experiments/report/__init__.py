"""HTML pages and terminal tables that show a run, several runs, a graph or a schedule."""
