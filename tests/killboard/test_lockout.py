"""Guessing passwords of the admin (T14): five times, then a quarter of an hour of silence."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

pytestmark = pytest.mark.django_db

LOGIN = "/admin/login/?next=/admin/"


@pytest.fixture
def operator():
    return User.objects.create_superuser("operator", password="a right password")


def guess(password, username="operator", **headers):
    return Client(headers=headers).post(LOGIN, {"username": username, "password": password}).status_code


def test_there_is_no_user_until_somebody_makes_one():
    assert User.objects.count() == 0


def test_the_sixth_try_is_refused_whatever_it_is(operator):
    assert [guess("wrong") for _ in range(5)] == [200, 200, 200, 200, 429]
    assert guess("a right password") == 429


def test_others_and_other_addresses_are_not_locked_out(operator, settings):
    settings.TRUSTED_PROXIES = 1
    for _ in range(6):
        guess("wrong", **{"X-Forwarded-For": "192.0.2.1"})
    assert guess("a right password", **{"X-Forwarded-For": "192.0.2.1"}) == 429
    assert guess("a right password", **{"X-Forwarded-For": "192.0.2.2"}) == 302
    # What stands before the proxy's own word may be invented, and changes nothing.
    assert guess("a right password", **{"X-Forwarded-For": "198.51.100.7, 192.0.2.1"}) == 429


def test_a_right_password_forgets_the_wrong_ones(operator):
    assert [guess("wrong") for _ in range(4)] == [200] * 4
    assert guess("a right password") == 302
    assert guess("wrong") == 200
