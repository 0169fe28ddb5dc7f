"""Files: size-limited reading of untrusted ones, and atomic writing."""
