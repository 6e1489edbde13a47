"""The processes in the admin: to be looked at, and no more."""

import pytest

from health.models import Process

pytestmark = pytest.mark.django_db


def test_processes_are_shown_and_nobody_changes_them(admin_client) -> None:
    Process.objects.create(pk="host:1:a", kind="worker", name="worker 2 <b>", worker_id="2", queues=["feed"])
    page = admin_client.get("/admin/health/process/")
    assert page.status_code == 200
    assert "worker 2 &lt;b&gt;" in page.text
    assert "<b>" not in page.text
    assert admin_client.get("/admin/health/process/host_3A1_3Aa/change/").status_code == 200
    for path in ("add/", "host_3A1_3Aa/delete/"):
        assert admin_client.get(f"/admin/health/process/{path}").status_code == 403
    admin_client.post("/admin/health/process/host_3A1_3Aa/change/", {"name": "other"})
    assert Process.objects.get().name == "worker 2 <b>"
