"""Real PostgreSQL, Redis and RabbitMQ for tests, each on free loopback ports in a folder of its own."""

from tests.services.postgresql import PostgreSQL
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis

__all__ = ["PostgreSQL", "RabbitMQ", "Redis"]
