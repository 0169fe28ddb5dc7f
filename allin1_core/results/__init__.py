"""The result of an analysis: its files, where it came from, exports, figures and sonification."""
