"""Files of audio and mel spectrograms."""
