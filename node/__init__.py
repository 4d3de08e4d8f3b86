"""The program a person runs."""
