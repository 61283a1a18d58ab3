"""Schedules: graphs that change from round to round."""
