"""`manage.py` commands of killmails."""
