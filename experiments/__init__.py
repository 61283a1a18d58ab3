"""Where peers, topologies and networks meet: experiments, how they are run, and what comes of them."""
