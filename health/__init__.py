"""Watches the board: every process, every service, and what is to be done about them."""
