"""Listening reports: HTML pages on which the versions of recordings are heard, seen and compared."""
