"""One module for each command: `add` adds its arguments to the command line, `execute` carries it out.

Heavy libraries are imported when a command runs, so that help and errors appear at once.
"""
