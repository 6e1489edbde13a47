"""What all workers share about ESI: how much may be asked, and answers that have not expired."""

from django.db import models


class EsiBudget(models.Model):
    """Counts of ESI's limits, where there is no Redis to hold them: of all routes under "", and of each bucket.

    Written under the lock of the row "", so that of two questions at once each sees what the other one cost.
    """

    name = models.CharField(max_length=100, primary_key=True)
    counts = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"Budget {self.name or 'of all routes'}"


class EsiAnswer(models.Model):
    """An answer that may be used again until it expires, and after that if ESI says that nothing has changed."""

    path = models.CharField(max_length=200, primary_key=True)
    etag = models.CharField(max_length=200)
    expires_at = models.DateTimeField()
    body = models.BinaryField(help_text="Deflated.")
    size = models.PositiveIntegerField(help_text="Bytes of the body as it lies here.")

    class Meta:
        indexes = [
            # Which answers go first when there are too many.
            models.Index(fields=["expires_at"], name="esi_answer_expires"),
        ]

    def __str__(self) -> str:
        return f"Answer to {self.path}"
