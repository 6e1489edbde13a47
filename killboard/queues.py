"""The queues in RabbitMQ, and where a message ends that cannot be done: among the dead letters."""

from kombu import Exchange, Queue

FEED_QUEUE = "feed"
PUBLISH_QUEUE = "publish"
ESI_QUEUE = "esi"
BULK_QUEUE = "bulk"
DELIVERIES = 5  # again; a task that kills its process must not run for ever

PREFIX = "killboard."
EXCHANGE = Exchange("killboard", type="topic")
DEAD_LETTERS = Queue(
    "killboard.dead", Exchange("killboard.dead", type="fanout"), queue_arguments={"x-queue-type": "quorum"}
)


def work_queue(name: str) -> Queue:
    """A quorum queue, which survives the loss of the broker, counts deliveries, and loses no dead letter.

    `name` is what people and `-Q` say. RabbitMQ's own name for it differs, since it refuses a queue whose
    arguments differ from those that it was made with: whoever changes these arguments changes PREFIX too.
    """
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERIES,
        "x-dead-letter-exchange": DEAD_LETTERS.exchange.name,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # at-least-once needs it
    }
    return Queue(f"{PREFIX}{name}", EXCHANGE, f"{PREFIX}{name}", queue_arguments=arguments, alias=name)


WORK_QUEUES = [work_queue(name) for name in (FEED_QUEUE, PUBLISH_QUEUE, ESI_QUEUE, BULK_QUEUE)]
# What is not named here goes to `bulk`.
ROUTES = {
    "killmails.tasks.publish_withheld": {"queue": PUBLISH_QUEUE},
    "killmails.tasks.work_on_esi": {"queue": ESI_QUEUE},
}


def names_of(consumed: dict[str, Queue]) -> list[str]:
    """What people call the queues that a worker serves (Celery's `consume_from`), sorted."""
    return sorted(queue.alias or queue.name for queue in consumed.values())
