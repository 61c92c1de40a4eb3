"""ModelRunner on ONNX Runtime (CPU, CUDA)."""
