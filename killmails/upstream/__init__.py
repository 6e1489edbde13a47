"""Those whom we ask. The only part that speaks to the internet, and it knows no database."""
