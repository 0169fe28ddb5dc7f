"""Gate on speed, accuracy and memory: bars, checks, verdicts, baseline."""
