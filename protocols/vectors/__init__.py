"""JSON test vectors for SPEC.md."""
