"""Management commands of killmails."""
