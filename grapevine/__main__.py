"""`python -m grapevine`: the command line."""

from grapevine.experiments.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
