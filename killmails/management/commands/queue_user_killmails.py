"""Have the lists of users' characters read."""

from killmails.management.queue import QueueLists
from killmails.models import KillmailSync


class Command(QueueLists):
    kind = KillmailSync.Kind.CHARACTER
    whose = "characters that have logged in here"
