"""Money and the usage event: one record per generation, exact to the last decimal."""
