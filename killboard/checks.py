"""What a board must not run with, as system checks: `manage.py check --deploy` shows them, and processes obey them.

As deployment checks, since what is no process of the board (migrate, createsuperuser) has to work anyway.
"""

import sys
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register, run_checks

from killboard import alone

TAG = "killboard"
IN_MEMORY = "PubSub is In-memory (single process only)"


@register(TAG, deploy=True)
def check_pubsub(app_configs: object, **options: Any) -> list[CheckMessage]:
    """Without Redis killmails reach the subscribers of one process: enough on one's own machine, and nowhere else."""
    if settings.USE_REDIS_PUBSUB:
        return []
    errors: list[CheckMessage] = []
    if not settings.DEBUG:
        hint = "Set REDIS_URL; or DEBUG=true, for a board on your own machine."
        errors.append(Error(f"{IN_MEMORY}, and DEBUG is off.", hint=hint, id="killboard.E001"))
    if other := alone.other():
        message = f"{IN_MEMORY}, and another one of this board runs ({other}): neither would hear the other."
        hint = "Set REDIS_URL for both, or stop the other one."
        errors.append(Error(message, hint=hint, id="killboard.E002"))
    return errors


def obey_checks(kind: str) -> None:
    """Ends this process, a `server`, `worker` or `beat`, with exit code 2 and one line where a check refuses it."""
    if not settings.USE_REDIS_PUBSUB:
        alone.claim(kind)
    for message in run_checks(tags=[TAG], include_deployment_checks=True):
        if message.is_serious():
            # Not sys.stderr: Celery makes log lines of that.
            print(f"killboard does not start: {message.id}: {message.msg} {message.hint}", file=sys.__stderr__)
            sys.exit(2)
