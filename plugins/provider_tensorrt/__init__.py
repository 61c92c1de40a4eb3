"""Decoders on TensorRT and TensorRT for RTX: the plugin `tensorrt`."""

NAME = "tensorrt"
