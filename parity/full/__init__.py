"""The long comparisons: hundreds of songs, whole tracks."""
