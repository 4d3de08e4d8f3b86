"""Research tasks."""
