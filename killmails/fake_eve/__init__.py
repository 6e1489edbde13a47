"""ESI and EVE's SSO on loopback, as their clients meet them, with their rules, and with faults as they are told."""

from killmails.fake_eve.faults import Fault
from killmails.fake_eve.server import Asked, FakeEsi
from killmails.fake_eve.sso import Application, FakeSso, Grant
from killmails.fake_eve.world import World

__all__ = ["Application", "Asked", "FakeEsi", "FakeSso", "Fault", "Grant", "World"]
