"""What the table of GPUs in docs/performance.md is measured with: `python -m benchmarks.gpu`."""
