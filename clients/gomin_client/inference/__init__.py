"""From a mel to audio: windows, several requests in flight, checks of arguments."""
