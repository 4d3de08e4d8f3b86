"""What turns frontier and history into hypotheses."""
