"""Benchmarks, their report, and the gate: times only count beside a check of the same run's outputs."""
