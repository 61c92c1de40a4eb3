"""A small trained chat model in the package: the embedded default."""
