"""What an experiment file may say: tables, menus, events, text with units, and the errors that name what is wrong in it."""
