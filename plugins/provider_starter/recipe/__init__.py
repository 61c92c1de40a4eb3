"""Everything needed to make the built-in model again: vocabulary, data, training, evaluation."""
