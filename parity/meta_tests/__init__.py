"""Proof that the parity checks can fail: wrong outputs, put through the very functions that the parity tests call."""
