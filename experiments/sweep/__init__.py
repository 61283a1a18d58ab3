"""Many runs of one experiment: axes, tuning, the runs themselves, and the table of all runs."""
