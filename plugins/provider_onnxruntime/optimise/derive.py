"""A copy of a decoder with other weights."""

from pathlib import Path

from provider_onnxruntime.optimise.model_graph import ModelGraph
from provider_onnxruntime.optimise.weights import convert_weights
from provider_onnxruntime.weight_sets import WeightSet


def derive_weights(source: Path, target: Path, weight_set: WeightSet) -> Path:
    """Write `target`, and its weights beside it; return it.

    Raises:
        ConfigurationError: The graph does not take these weights.
    """
    graph = ModelGraph.load(source)
    convert_weights(graph, weight_set)
    graph.save(target)
    return target
