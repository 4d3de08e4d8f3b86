"""Small byte-level GPT on one CPU core."""
