"""The contents of an experiment file: tables, menus, events, text with units, and the errors for mistakes in it."""
