"""The commands about users' killmails: what each says, and its exit code."""

import base64
import subprocess

import pytest
from django.core.management import CommandError, call_command

from killmails.models import KillmailSync, PendingKillmail
from killmails.recording.tape import killmail_hash
from tests.killmails.eve import BOTH, KILLER, KILLER_CORPORATION, VICTIM
from tests.killmails.test_users import due_now

pytestmark = pytest.mark.django_db


def run(capsys, *command, **options):
    call_command(*command, **options)
    return capsys.readouterr().out.splitlines()


def refused(*command, **options):
    with pytest.raises(CommandError) as caught:
        call_command(*command, **options)
    return caught.value.returncode, str(caught.value)


def test_lists_are_queued_and_named(eve, capsys):
    eve.fake.world.roles[KILLER] = ("Director",)
    eve.login(VICTIM), eve.login(KILLER, BOTH)
    eve.work()
    assert run(capsys, "queue_user_killmails") == ["0 lists are queued."]
    due_now(VICTIM)
    KillmailSync.objects.filter(eve_id=VICTIM).update(last_run_at=None)
    assert run(capsys, "queue_user_killmails") == [f"character {VICTIM}", "1 list is queued."]
    assert KillmailSync.objects.get(eve_id=VICTIM).priority == 1
    forced = run(capsys, "queue_user_killmails", force=True, full=True)
    until = KillmailSync.objects.get(eve_id=KILLER).not_before
    held = f"character {KILLER}, not before {until:%H:%M:%S} UTC, for ESI's answer holds"
    assert forced == [f"character {VICTIM}", held, "2 lists are queued."]
    assert set(KillmailSync.objects.filter(kind="character").values_list("full", flat=True)) == {True}
    forced = run(capsys, "queue_corporation_killmails", "--force", f"--corporation={KILLER_CORPORATION}")
    assert (forced[0].partition(", not before")[0], forced[1]) == (
        f"corporation {KILLER_CORPORATION}", "1 list is queued.",
    )  # fmt: skip


def test_who_has_not_logged_in_is_said_so(eve):
    assert refused("queue_user_killmails", "--character=5") == (
        4, "--character 5: is none of the characters that have logged in here",
    )  # fmt: skip
    assert refused("queue_corporation_killmails", "--corporation=5")[0] == 4


def test_a_killmail_is_queued_and_published(eve, capsys):
    hash_ = killmail_hash(eve.fake.world.killmails[1001])
    assert run(capsys, "queue_killmail", "1001", hash_) == ["Killmail 1001 is queued."]
    assert PendingKillmail.objects.get().priority == 1
    eve.work()
    assert run(capsys, "queue_killmail", "1001", hash_) == ["Killmail 1001 is stored already."]
    run(capsys, "queue_killmail", "1002", "0" * 40)
    eve.work()
    code, text = refused("queue_killmail", "1002", "0" * 40)
    assert (code, text.startswith("Killmail 1002 was refused before: ESI_UNKNOWN")) == (1, True)


@pytest.mark.parametrize(
    ("id_", "hash_", "text"),
    [
        ("abc", "0" * 40, "ID abc: is not a killmail's id, a whole number"),
        ("0", "0" * 40, "ID 0: is not a killmail's id, a whole number"),
        ("0" * 20 + "1", "0" * 40, f"ID {'0' * 20}1: is not a killmail's id, a whole number"),
        ("9" * 30, "0" * 40, f"ID {'9' * 30}: is not a killmail's id, a whole number"),
        ("1", "A" * 40, f"HASH {'A' * 40}: is not 40 hex digits in lower case"),
    ],
)
def test_a1_what_is_no_killmail_is_refused(id_, hash_, text):
    assert refused("queue_killmail", id_, hash_) == (2, text)
    assert PendingKillmail.objects.count() == 0


def test_sync_status_says_how_each_list_stands(eve, capsys):
    assert run(capsys, "sync_status")[0] == "0 lists; nobody has logged in"
    eve.login(KILLER, BOTH)
    eve.work()
    character, corporation, lists, rest = run(capsys, "sync_status")
    assert character.split()[:3] == ["character", str(KILLER), "UP_TO_DATE"]
    assert "s ago" in character
    assert "next in" in character
    assert corporation.endswith("not again         Character does not have required role(s)")
    assert lists == "2 lists: 1 OFF, 1 UP_TO_DATE"
    assert rest == "0 killmails to fetch; 0 characters have to log in again"


def test_the_key_that_the_documents_make_is_one():
    command = ["python3", "-c", "import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"]
    key = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert len(base64.urlsafe_b64decode(key)) == 32


def test_keys_are_needed_to_take_another_one(settings):
    settings.TOKEN_KEYS = []
    assert refused("rotate_token_keys") == (2, "TOKEN_KEYS: is not set, so there is nothing to encrypt with.")
