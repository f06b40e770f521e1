"""GOMIN checkpoints: PyTorch reference networks, and their export to ONNX and a Triton model repository.

Depends on torch and onnx, and on `gomin_client` for the mel front end, the sampler and the model contract; never the
other way round.
"""
