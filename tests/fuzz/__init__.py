"""Readers of what people bring, fed with anything. `targets` holds what is fuzzed; hypothesis and atheris feed it."""
