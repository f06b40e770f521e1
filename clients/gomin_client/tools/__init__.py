"""Measuring tools: distance between recordings, load test of a server."""
