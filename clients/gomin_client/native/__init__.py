"""The library of our own operators for ONNX Runtime; the build puts it here, see `library`."""
