"""Reading and conversion of audio: types, file formats, mono, sample rate, 16 bits."""
