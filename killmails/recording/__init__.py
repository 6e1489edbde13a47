"""A recording of invented killmails, and a small R2Z2 server on loopback that plays it."""
