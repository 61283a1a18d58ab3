"""Virtual time: every peer of a fleet in one process, on a clock that jumps from event to event."""
