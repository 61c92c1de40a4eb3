"""What is done to a decoder's graph before it is run. Only this package imports `onnx`."""
