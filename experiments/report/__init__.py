"""HTML pages and terminal tables: how a run, several runs, a graph or a schedule are shown to a person."""
