"""The admin: whatever comes from outside is text."""

import time

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import sync_playwright

from killmails import models
from killmails.models import FeedCursor, RejectedKillmail
from tests.killmails.admin_driver import ADMIN, AMMO, JITA, KILLMAILS, MODELS, REJECTED, act, page, reject, store

HOSTILE = [
    "<script>hacked()</script>",
    "</script><script>hacked()</script>",
    "<img src=x onerror=hacked()>",
    "<svg onload=hacked()>",
    "<svg><script>hacked()</script></svg>",
    "\"><script>hacked()</script>",
    "'><script>hacked()</script>",
    "\" onmouseover=\"hacked()\" autofocus onfocus=\"hacked()\" x=\"",
    "' autofocus onfocus='hacked()' x='",
    "</pre><script>hacked()</script>",
    "</textarea><script>hacked()</script>",
    "</title><script>hacked()</script>",
    "<!--><script>hacked()</script>-->",
    "<details open ontoggle=hacked()>",
    "<iframe srcdoc='<script>parent.hacked()</script>'></iframe>",
    "<a href=\"javascript:hacked()\">click</a>",
    "<style>@import '//evil.example/x.css';</style>",
    "<base href='//evil.example/'>",
    "<meta http-equiv=refresh content='0;url=//evil.example/'>",
    "{{ 7|add:7 }}{% debug %}<math><mtext></mtext><script>hacked()</script></math>",
]  # fmt: skip


def hostile_board():
    """Hostile texts everywhere; gives the addresses of the pages that show them."""
    store(1, labels=HOSTILE, items=[{"item_type_id": AMMO, "flag": 5, "singleton": 0, "quantity_dropped": 1}])
    names = iter(HOSTILE * 2)
    for model in (models.Character, models.Corporation, models.InventoryType, models.SolarSystem):
        for row in model.objects.all():
            model.objects.filter(pk=row.pk).update(name=next(names))
    for number, text in enumerate(HOSTILE, start=1):
        models.Alliance.objects.create(pk=number, name=text)
        reject(number, raw=text.encode(), detail=text, note=text, state="OPEN" if number % 2 else "DISCARDED")
    user = User.objects.create_user("pilot")
    models.UserCharacter.objects.create(pk=1, user=user, name=HOSTILE[1], state="NEEDS_LOGIN", reason=HOSTILE[3])
    models.KillmailSync.objects.create(kind="character", eve_id=1, state="OFF", reason=HOSTILE[4])
    FeedCursor.objects.create(name="r2z2", last_answer=HOSTILE[0], lease_holder=HOSTILE[2])
    paths = [KILLMAILS, f"{KILLMAILS}1/change/", f"{KILLMAILS}1/package/", f"{ADMIN}/attacker/?killmail=1"]
    paths += [f"{ADMIN}/{name}/" for name in MODELS] + [f"{ADMIN}/feedcursor/r2z2/change/"]
    paths += [
        f"{KILLMAILS}?solar_system={JITA}",
        f"{KILLMAILS}?victim_ship_type=%22%3E%3Cscript%3Ehacked()%3C/script%3E",
    ]
    paths += [f"{REJECTED}{row.pk}/change/" for row in RejectedKillmail.objects.all()]
    paths += [f"{ADMIN}/alliance/{number}/change/" for number in (1, 3, 20)]
    return paths


@pytest.mark.django_db
def test_hostile_texts_are_escaped_on_every_page(admin_client):
    seen = ""
    for path in hostile_board():
        html = page(admin_client, path)
        assert [text for text in HOSTILE if text in html] == [], path
        seen += html
    assert "&lt;script&gt;hacked()&lt;/script&gt;" in seen
    html = act(admin_client, "discard_selected", RejectedKillmail.objects.all()).content.decode()
    assert [text for text in HOSTILE if text in html] == []


@pytest.mark.django_db
def test_hostile_reason_is_escaped_in_the_history(admin_client):
    rejected = reject()
    for text in HOSTILE[:3]:
        RejectedKillmail.objects.update(state="OPEN")
        html = act(admin_client, "discard_selected", [rejected], note=text).content.decode()
        html += page(admin_client, f"{REJECTED}{rejected.pk}/history/") + page(admin_client, "/admin/")
        assert text not in html


@pytest.mark.django_db(transaction=True)
def test_no_browser_runs_hostile_texts(admin_client, live_server):
    cookie = {"name": "sessionid", "value": admin_client.cookies["sessionid"].value, "url": live_server.url}
    paths = [*hostile_board(), "/blind"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        context = browser.new_context()
        context.add_cookies([cookie])
        context.set_default_timeout(120_000)
        page = context.new_page()
        hacked, strangers = [], []
        page.expose_function("hacked", lambda: hacked.append(page.url))
        page.route("**/blind", lambda route: route.fulfill(body="".join(HOSTILE[:4]), content_type="text/html"))
        page.on("request", lambda request: strangers.append(request.url) if "evil" in request.url else None)
        for path in paths:
            response = page.goto(f"{live_server.url}{path}")
            assert (response.status, response.url) == (200, f"{live_server.url}{path}")
        ends_at = time.monotonic() + 60
        while not hacked and time.monotonic() < ends_at:
            page.wait_for_timeout(50)
        browser.close()
    # The last page is not escaped: were it not seen, this test would see nothing.
    assert {url.removeprefix(live_server.url) for url in hacked} == {"/blind"}
    assert strangers == []
