"""Which address leads where."""

from django.contrib import admin
from django.urls import path, re_path

from killboard import pages, views

urlpatterns = [
    path("", pages.first_page),
    re_path(r"^graphql/?$", views.graphql),
    path("admin/", admin.site.urls),
]
