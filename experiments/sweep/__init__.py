"""Many runs of one experiment: what varies, how each run is tuned and carried out, and the table of all of them."""
