"""Measurement: paired times, memory, instructions, load of the machine."""
