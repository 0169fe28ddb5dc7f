"""Instruction sets: what the compiled kernels are compiled for, and which of them run here."""
