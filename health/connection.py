"""A database connection of a thread's own: what watches must not wait for those it watches."""

from django.db import connections

LIMITS = {"connect_timeout": 2, "tcp_user_timeout": 5000}  # seconds; milliseconds until a peer counts as gone


def use_own_connection() -> None:
    """For the thread that calls: beside the pool, which may be empty because the database is frozen."""
    own = connections["default"].copy()
    if own.vendor == "postgresql":
        options = {key: value for key, value in own.settings_dict["OPTIONS"].items() if key != "pool"}
        own.settings_dict["OPTIONS"] = options | LIMITS
    connections["default"] = own
