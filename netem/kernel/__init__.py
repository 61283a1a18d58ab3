"""The kernel backend: the same networks carried by the Linux kernel's own shaping."""
