"""What is done to a decoder before it runs, and where the outcome is kept."""
