"""The admin: nobody changes anything, and who may see what."""

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User

from killmails import models
from killmails.models import DeadLetter, FeedCursor, FeedGap
from tests.killmails.admin_driver import ADMIN, KILLMAILS, MODELS, REJECTED, log_in, page, reject, store


@pytest.fixture
def one_of_each(db):
    """One row of each model, by the model's name in addresses."""
    killmail = store()
    for model in (models.Alliance, models.Faction, models.Region, models.Constellation):
        model.objects.create(pk=7, name="seven")
    models.InventoryCategory.objects.create(pk=7), models.InventoryGroup.objects.create(pk=7)
    FeedCursor.objects.create(name="r2z2", next_sequence=5)
    FeedGap.objects.create(first_sequence=1, last_sequence=2, reason="MISSING")
    models.UserCharacter.objects.create(pk=1, user=User.objects.create_user("pilot"))
    models.KillmailSync.objects.create(kind="character", eve_id=1)
    reject(), DeadLetter.objects.create(key="1", reason="rejected", raw=b"")
    rows = {name: models.__dict__[model.__name__].objects.first() for name, model in _models().items()}
    assert killmail.pk == 1
    assert None not in rows.values()
    return rows


def _models():
    classes = apps.get_app_config("killmails").get_models()
    return {model._meta.model_name: model for model in classes if model._meta.model_name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_superuser_sees_but_cannot_add_change_or_delete(admin_client, one_of_each, name):
    row, before = one_of_each[name], _models()[name].objects.values()
    before = list(before)
    page(admin_client, f"{ADMIN}/{name}/")
    html = page(admin_client, f"{ADMIN}/{name}/{row.pk}/change/")
    assert "_save" not in html
    assert "deletelink" not in html
    for path in ("add/", f"{row.pk}/delete/"):
        assert admin_client.get(f"{ADMIN}/{name}/{path}").status_code == 403
        assert admin_client.post(f"{ADMIN}/{name}/{path}", {"post": "yes"}).status_code == 403
    assert admin_client.post(f"{ADMIN}/{name}/{row.pk}/change/", {"name": "x"}).status_code == 403
    deletion = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    admin_client.post(f"{ADMIN}/{name}/", deletion)
    admin_client.post(f"{ADMIN}/{name}/", {**deletion, "index": "0", "select_across": "1"})
    assert list(_models()[name].objects.values()) == before


def test_package_is_not_in_the_admin_by_itself(admin_client, one_of_each):
    page(admin_client, f"{ADMIN}/killmailpackage/", status=404)


@pytest.mark.parametrize("name", MODELS)
def test_view_permission_is_needed_and_enough(client, one_of_each, name):
    row, needed = one_of_each[name], "killmail" if name == "attacker" else name
    log_in(client)
    assert client.get(f"{ADMIN}/{name}/").status_code == 403
    assert client.get(f"{ADMIN}/{name}/{row.pk}/change/").status_code == 403
    User.objects.get(username="mechanic").user_permissions.add(Permission.objects.get(codename=f"view_{needed}"))
    page(client, f"{ADMIN}/{name}/")
    page(client, f"{ADMIN}/{name}/{row.pk}/change/")


def test_permission_to_see_killmails_shows_attackers_and_package_too(client, one_of_each):
    log_in(client, "view_killmail")
    assert "character 91000000" in page(client, f"{KILLMAILS}1/change/")
    page(client, f"{KILLMAILS}1/package/")
    page(client, f"{KILLMAILS}1/package/file/")


def test_raw_bytes_need_the_permission_of_what_they_belong_to(client, one_of_each):
    log_in(client, "view_character")
    for path in (f"{KILLMAILS}1/package/", f"{KILLMAILS}1/package/file/"):
        assert client.get(path).status_code == 403
    assert client.get(f"{REJECTED}{one_of_each['rejectedkillmail'].pk}/raw/").status_code == 403


def test_nobody_sees_anything_without_a_login(client, one_of_each):
    for path in ("/admin/", KILLMAILS, f"{KILLMAILS}1/package/file/", REJECTED):
        response = client.get(path)
        assert response.status_code == 302
        assert response["Location"].startswith("/admin/login/")


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["killmail/9/change/", "killmail/9/package/", "rejectedkillmail/9/raw/"])
def test_what_is_not_there_is_no_error_of_ours(admin_client, path):
    assert admin_client.get(f"{ADMIN}/{path}").status_code in (302, 404)
    assert admin_client.get(f"{ADMIN}/{path.replace('9', '9' * 30)}").status_code in (302, 404)
    assert admin_client.get(f"{ADMIN}/{path.replace('9', 'x')}").status_code in (302, 404)
