"""The contract between models and clients: names of models and tensors, config parameters."""
