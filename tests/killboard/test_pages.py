"""The pages as the server sends them: their policy, and that nothing of theirs lies elsewhere."""

import re
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.test import RequestFactory

from killboard import pages

STATIC = Path(pages.__file__).parent / "static"
OUR_ASSETS = sorted((STATIC / "board").iterdir())
OUR_SCRIPTS = [path for path in OUR_ASSETS if path.suffix == ".js"]
VENDORED = STATIC / "graphiql"
# An SVG file names its language by an address that nobody ever asks.
SVG_NAMESPACE = "http://www.w3.org/2000/svg"
PAGES = [pytest.param(pages.first_page, id="first page"), pytest.param(pages.graphiql, id="graphiql")]


def _external_addresses(text):
    text = text.replace(SVG_NAMESPACE, "")
    return re.findall(r"\b(?:https?|wss?)://[^\s$]+|[\"'(=]\s*//[\w.]+", text)


def test_first_page_sends_exactly_this_policy():
    response = pages.first_page(RequestFactory().get("/"))
    assert response["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "connect-src 'self' ws://testserver wss://testserver"
    )


def test_graphiql_sends_exactly_this_policy():
    response = pages.graphiql(RequestFactory().get("/graphql"))
    assert response["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "connect-src 'self' ws://testserver wss://testserver"
    )


def test_policy_names_the_port_that_the_page_was_asked_at(settings):
    settings.ALLOWED_HOSTS = ["board.example"]
    response = pages.first_page(RequestFactory().get("/", HTTP_HOST="board.example:4000"))
    assert response["Content-Security-Policy"].endswith(
        "; connect-src 'self' ws://board.example:4000 wss://board.example:4000"
    )


def test_policy_leaves_out_an_ipv6_address_which_it_could_not_write(settings):
    settings.ALLOWED_HOSTS = ["[::1]"]
    response = pages.first_page(RequestFactory().get("/", HTTP_HOST="[::1]:4000"))
    assert response["Content-Security-Policy"].endswith("; connect-src 'self'")


@pytest.mark.parametrize("page", PAGES)
def test_page_is_html_that_a_browser_asks_for_again_each_time(page):
    response = page(RequestFactory().get("/"))
    assert response.status_code == 200
    assert response["Content-Type"] == "text/html; charset=utf-8"
    assert response["Cache-Control"] == "no-cache"


def test_graphiql_tells_caches_that_its_address_has_another_face():
    assert pages.graphiql(RequestFactory().get("/graphql"))["Vary"] == "Accept"


@pytest.mark.parametrize("page", PAGES)
def test_page_refuses_to_be_posted_to(page):
    assert page(RequestFactory().post("/")).status_code == 405


@pytest.mark.parametrize("page", PAGES)
def test_page_has_no_inline_script_or_style(page):
    html = page(RequestFactory().get("/")).content.decode()
    assert re.findall(r"<script(?![^>]*\ssrc=)", html) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", html) == []


@pytest.mark.parametrize("page", PAGES)
def test_page_names_no_address_but_our_own(page):
    assert _external_addresses(page(RequestFactory().get("/")).content.decode()) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_asset_of_a_page_is_there(page):
    html = page(RequestFactory().get("/")).content.decode()
    assets = re.findall(r"(?:src|href)=\"/static/([^\"]+)\"", html)
    assert len(assets) >= 4
    assert [asset for asset in assets if finders.find(asset) is None] == []


@pytest.mark.parametrize("asset", OUR_ASSETS, ids=lambda asset: asset.name)
def test_our_asset_names_no_address_but_our_own(asset):
    assert _external_addresses(asset.read_text()) == []


def test_check_for_external_addresses_sees_them():
    assert _external_addresses('<img src="https://images.example/1.png">') != []
    assert _external_addresses('<script src="//cdn.example/x.js">') != []
    assert _external_addresses("@import url(//cdn.example/x.css)") != []


@pytest.mark.parametrize("asset", OUR_SCRIPTS, ids=lambda asset: asset.name)
def test_our_script_never_makes_markup_or_code_from_text(asset):
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|setHTML|\beval\(|new Function"
    assert re.findall(ways, asset.read_text()) == []


def test_every_module_that_a_script_of_ours_imports_is_there():
    for asset in OUR_ASSETS:
        for imported in re.findall(r" from \"\./([^\"]+)\"", asset.read_text()):
            assert (asset.parent / imported).is_file(), f"{asset.name} imports {imported}"


def test_graphiqls_style_sheet_loads_nothing():
    css = (VENDORED / "graphiql.min.css").read_text()
    addresses = re.findall(r"url\(\s*[\"']?([^\"')]{0,12})", css)
    assert len(addresses) == 37
    assert [address for address in addresses if not address.startswith("data:")] == []
    assert "@import" not in css


def test_vendored_scripts_point_to_no_source_map():
    assert [path.name for path in VENDORED.glob("*.js") if "sourceMappingURL" in path.read_text()] == []


def test_vendored_files_are_these_and_each_has_its_licence():
    assert sorted(path.name for path in VENDORED.iterdir()) == [
        "LICENSE.bundled.txt",
        "LICENSE.graphiql.txt",
        "LICENSE.graphql-ws.txt",
        "LICENSE.react.txt",
        "graphiql.min.css",
        "graphiql.min.js",
        "graphql-ws.min.js",
        "react-dom.production.min.js",
        "react.production.min.js",
    ]
    owners = {"graphiql": "GraphQL Contributors", "graphql-ws": "Denis Badurina", "react": "Facebook, Inc."}
    for name, owner in owners.items():
        text = (VENDORED / f"LICENSE.{name}.txt").read_text()
        assert owner in text
        assert "Permission is hereby granted, free of charge" in text


@pytest.mark.parametrize(
    "part",
    ["codemirror (MIT)", "graphql (MIT)", "Fira Code", "Roboto", "Apache License"],
)
def test_licence_of_a_part_inside_graphiql_is_there(part):
    assert part in (VENDORED / "LICENSE.bundled.txt").read_text()
