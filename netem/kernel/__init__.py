"""The kernel backend: the same networks, shaped by the Linux kernel."""
