"""Who may call: keys."""
