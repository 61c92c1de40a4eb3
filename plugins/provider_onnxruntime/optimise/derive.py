"""A copy of a decoder with other weights."""

from pathlib import Path

from provider_onnxruntime.optimise.embeddings import gather_before_cast
from provider_onnxruntime.optimise.graph import ModelGraph
from provider_onnxruntime.optimise.weights import convert_weights
from provider_onnxruntime.weight_sets import WeightSet


def derive_weights(source: Path, target: Path, weight_set: WeightSet) -> Path:
    """Write `target`, and its weights beside it; return it.

    Raises:
        ConfigurationError: The graph does not take these weights.
    """
    with ModelGraph(source, target) as graph:
        convert_weights(graph, weight_set)
        gather_before_cast(graph)
        return graph.save()
