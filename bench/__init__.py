"""Benchmarks: what a token, a request and a start cost. Run on a quiet machine, never as tests."""
