"""Timings of a run: recorded stage by stage, read again, reported and compared."""
