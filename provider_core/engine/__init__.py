"""Ids in, ids out: batching, sampling and the thread that owns a model runner."""
