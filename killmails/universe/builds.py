"""Builds of CCP's static data: the one that is loaded, and the newest that there is."""

import logging
from datetime import timedelta

from django.conf import settings
from django.db.models.functions import Now

from killmails.errors import Unacceptable, UpstreamError
from killmails.models import StaticDataBuild
from killmails.models.places import fill_places
from killmails.upstream.static_data import StaticData

logger = logging.getLogger(__name__)

DAY = timedelta(hours=23)  # a beat that asks each hour, and is a little early, asks once in a day


def static_data() -> StaticData:
    return StaticData(settings.STATIC_DATA_URL, settings.CONTACT)


def loaded_build() -> int | None:
    """None: nothing was loaded yet."""
    loaded = StaticDataBuild.objects.filter(loaded_at__isnull=False).order_by("-loaded_at")
    return loaded.values_list("build", flat=True).first()


def notice_build(upstream: StaticData) -> int:
    """The newest build, having written it down. Raises UpstreamError, Unacceptable."""
    known = StaticDataBuild.objects.exclude(etag="").order_by("-noticed_at").first()
    latest = upstream.fetch_latest(known.etag if known else "")
    if latest is None and known:
        StaticDataBuild.objects.filter(pk=known.pk).update(noticed_at=Now())
        return known.pk
    if latest is None:
        raise UpstreamError("latest.jsonl has not changed, says the server, though we know no version of it")
    told = {"released_at": latest.released_at, "etag": latest.etag, "noticed_at": Now()}
    StaticDataBuild.objects.update_or_create(build=latest.build, defaults=told)
    return latest.build


def watch_builds() -> None:
    """Once in a day, however often it is called: says when there is a newer build than ours.

    Killmails that were being stored while a build was loaded get their place, too.
    """
    if settings.FEED == "recorded" or StaticDataBuild.objects.filter(noticed_at__gt=Now() - DAY, etag__gt="").exists():
        return
    try:
        newest = notice_build(static_data())
    except (UpstreamError, Unacceptable) as error:
        logger.warning("CCP does not say which build of the static data is the newest; asked again later: %s", error)
        return
    fill_places()
    loaded = loaded_build()
    if loaded is None or loaded < newest:
        logger.warning(
            "Build %d of CCP's static data is there, and %s is loaded: run `python manage.py load_universe`",
            newest,
            f"build {loaded}" if loaded else "none",
        )
