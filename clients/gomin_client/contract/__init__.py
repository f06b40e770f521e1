"""What a model repository tells its clients: names of models and tensors, config parameters."""
