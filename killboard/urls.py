"""Which address leads where."""

from django.contrib import admin
from django.urls import path, re_path

from killboard import account, login, pages, views

urlpatterns = [
    path("", pages.first_page),
    re_path(r"^graphql/?$", views.graphql),
    path("auth/login", login.begin),
    path("auth/callback", login.callback),
    path("auth/logout", login.end),
    path("account", account.account),
    path("admin/", admin.site.urls),
]
