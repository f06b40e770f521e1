"""The mel front end, and mel spectrograms that are not GOMIN's."""
