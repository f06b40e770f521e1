"""From a network to an ONNX file."""
