"""One thread for whatever computes: several would wait for each other busily, and take the processors from live fleets."""

import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
