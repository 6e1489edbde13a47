"""Static data: names and places."""
