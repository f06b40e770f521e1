"""From a mel spectrogram to audio: windows, several requests in flight, checks of what comes in."""
