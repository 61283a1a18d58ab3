"""The probe: each link's measured rate and delay against the configured ones, without training."""
