"""The two worlds that carry a fleet's effects out, virtual time and processes, and what both of them share."""
