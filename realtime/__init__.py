"""Moves events from a log to websockets. Knows nothing of EVE, and of Django only what Channels needs."""
