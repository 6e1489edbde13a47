"""`manage.py serve` and `manage.py runserver`."""
