"""How each family of models writes calls of tools, and which one a model belongs to."""
