"""Measuring tools: how far recordings are apart, how much a server can take."""
