"""Ways to a model: a Triton server over gRPC or HTTP, or in-process."""
