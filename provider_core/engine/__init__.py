"""Ids in, ids out: batching, sampling and the thread that owns a model runner."""

from provider_core.engine.engine import LLMEngine

__all__ = ["LLMEngine"]
