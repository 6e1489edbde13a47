"""The way in: from the upstream into the database and the log."""
