"""One module a command: `add` describes it to the command line, `execute` carries it out.

What is heavy is imported when a command runs, so that help and errors come at once.
"""
