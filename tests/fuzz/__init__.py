"""Fuzzing of the file readers and parsers. `targets` has the functions; hypothesis and atheris call them."""
