"""The laws of one link: its rate and delay over time, jitter, loss, and TCP."""
