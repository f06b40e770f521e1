"""Placing models into a Triton model repository."""
