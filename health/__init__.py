"""Watches the board and its services."""
