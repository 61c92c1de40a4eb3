"""Hugging Face folder to ONNX decoder."""
