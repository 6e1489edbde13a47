"""Have the lists of corporations read."""

from killmails.management.queue import QueueLists
from killmails.models import KillmailSync


class Command(QueueLists):
    kind = KillmailSync.Kind.CORPORATION
    whose = "corporations of which a director has logged in here"
