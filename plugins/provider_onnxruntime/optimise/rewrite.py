"""A copy of a decoder that does less for the same tokens, with other weights if they are wanted."""

from pathlib import Path

from provider_onnxruntime.optimise.embeddings import gather_before_cast
from provider_onnxruntime.optimise.graph import ModelGraph
from provider_onnxruntime.optimise.passes import feed_lengths, fold_biases, keep_wanted_rows
from provider_onnxruntime.optimise.weights import convert_weights
from provider_onnxruntime.weight_sets import WeightSet


def rewrite(source: Path, target: Path, logits: str, weight_set: WeightSet | None) -> Path:
    """Write `target`, and its weights beside it; return it.

    Args:
        source: The decoder as supplied.
        target: In an empty folder.
        logits: Name of the output.
        weight_set: To derive; none keeps the weights as they are.

    Raises:
        ConfigurationError: The graph does not take these weights.
    """
    with ModelGraph(source, target) as graph:
        if weight_set is not None:
            convert_weights(graph, weight_set)
        gather_before_cast(graph)
        feed_lengths(graph)
        keep_wanted_rows(graph, logits)
        fold_biases(graph)
        return graph.save()
