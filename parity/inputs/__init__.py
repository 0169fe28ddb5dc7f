"""Inputs of the comparisons: signals, activations, random networks."""
