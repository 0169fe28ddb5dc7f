"""Measurements of a device that the benchmarks of a CPU do not make."""
