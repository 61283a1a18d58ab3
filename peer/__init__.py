"""One peer: its strategies, messages, codecs and meters.  Nothing here imports a link model, a graph library or torch."""
