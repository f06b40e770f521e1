"""The client of a GOMIN vocoder on Triton: mel extraction, sampling, transports, files. No torch."""

DEFAULT_URL = "grpc://localhost:8001"
