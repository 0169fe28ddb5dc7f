"""The suite that holds allin1-core to its oracles: cases, oracles, parametrized tests, and their report."""
