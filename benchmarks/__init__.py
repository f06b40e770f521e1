"""What the figures in the documentation were measured with. `make bench` is `python -m benchmarks`."""

THREADS = 2  # of every contender
