"""Will watch the board and its services; empty so far."""
