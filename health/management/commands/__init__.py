"""Management commands of health."""
