"""Audio: read from files, mixed to mono, resampled, quantised."""
