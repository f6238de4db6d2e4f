"""What is refused before any page sees it."""

from __future__ import annotations

import re

import pytest
from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from reprise.site.app import create_app
from reprise.site.pages import Extension
from reprise.site.settings import Settings, host_name, signing_key

LOCAL = "http://127.0.0.1:8000"
SECRET = "a secret of many words"
router = APIRouter()


@router.post("/things")
@router.post("/leave/1")
@router.post("/subscribe")
def things(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(request.state.form.get("thing", "")))


@router.get("/form")
@router.get("/runs")
def form(request: Request) -> PlainTextResponse:
    request.state.csrf_used = True
    return PlainTextResponse(request.state.csrf)


@router.get("/broken")
def broken() -> None:
    raise ZeroDivisionError("oh")


PART = Extension(router, private=["/runs"], open_posts=["/subscribe", "/leave"], unasked=["/leave"])


def browser(settings: Settings, base: str = LOCAL) -> TestClient:
    return TestClient(create_app(settings, [PART]), base, raise_server_exceptions=False, follow_redirects=False)


@pytest.fixture
def here() -> TestClient:
    return browser(Settings())


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:99", "[::1]:8000", "localhost."])
def test_own_names_are_answered(here: TestClient, host: str) -> None:
    assert here.get("/form", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost@evil.example", "", "192.168.0.9", "["],
)
@pytest.mark.parametrize("path", ["/form", "/static/icon.svg", "/nothing"])
def test_other_names_are_not(here: TestClient, host: str, path: str) -> None:
    answer = here.get(path, headers={"Host": host})
    assert answer.status_code == 421 and "form" not in answer.text


def test_a_form_with_its_token_passes(here: TestClient) -> None:
    token = here.get("/form").text
    same = {"Sec-Fetch-Site": "same-origin", "Origin": LOCAL}
    assert here.post("/things", data={"csrf": token, "thing": "größe"}, headers=same).text == "größe"
    assert here.post("/things", data={"csrf": token}, headers={}).status_code == 200  # a browser without either header


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"},
     {"Origin": "http://evil.example"}, {"Origin": "null"}],
)  # fmt: skip
def test_forms_of_other_sites_are_refused(here: TestClient, headers: dict[str, str]) -> None:
    token = here.get("/form").text
    assert here.post("/things", data={"csrf": token, "thing": "x"}, headers=headers).status_code == 403


def test_without_the_right_token_nothing_is_done(here: TestClient) -> None:
    token = here.get("/form").text
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    for data in ({}, {"csrf": ""}, {"csrf": wrong}, {"csrf": "é"}):
        assert here.post("/things", data=data).status_code == 403
    stranger = browser(Settings())  # another browser, with another session
    assert stranger.post("/things", data={"csrf": token}).status_code == 403


def test_only_forms_of_a_sensible_size(here: TestClient) -> None:
    token = here.get("/form").text
    assert here.post("/things", data={"csrf": token, "thing": "x" * 70_000}).status_code == 413
    assert here.post("/things", json={"csrf": token}).status_code == 415
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert here.post("/things", content=b"csrf=\xff\xfe&%%%=&", headers=form).status_code == 403
    many = "&".join(f"a{i}=" for i in range(5000))
    assert here.post("/things", content=many, headers=form).status_code == 400
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert here.request(method, "/things").status_code == 405


def test_a_machine_may_post_where_it_is_told_so(here: TestClient) -> None:
    answer = here.post("/leave/1", data={"List-Unsubscribe": "One-Click"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200


def test_every_answer_is_strict(here: TestClient) -> None:
    for path in ("/", "/nothing", "/static/site.css", "/broken"):
        answer = here.get(path, headers={"Accept": "text/html"})
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert here.get("/broken").status_code == 500 and "ZeroDivisionError" in here.get("/broken").text
    assert "style=" not in here.get("/").text and "<script>" not in here.get("/").text


def test_head_is_get_without_the_body(here: TestClient) -> None:
    answer = here.head("/")
    assert answer.status_code == 200 and answer.content == b"" and int(answer.headers["Content-Length"]) > 500


def test_cookies_cannot_be_read_or_chosen(here: TestClient) -> None:
    first = here.get("/form", headers={"Cookie": "reprise_session=mine"})
    assert re.fullmatch(
        r"reprise_session=[0-9a-f]{32}; Path=/; Max-Age=\d+; HttpOnly; SameSite=Lax", first.headers["Set-Cookie"]
    )
    assert "no-cache" in first.headers["Cache-Control"]
    assert "Set-Cookie" not in here.get("/static/icon.svg").headers


# Other machines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.9", "::", "reprise.example"])
def test_other_addresses_demand_a_secret(host: str) -> None:
    for secret in ("", "short"):
        with pytest.raises(ValueError, match="REPRISE_SECRET"):
            Settings(host, secret=secret)
    with pytest.raises(ValueError, match="REPRISE_SECRET"):
        Settings(public_url="https://papers.example")
    with pytest.raises(ValueError, match="REPRISE_PUBLIC_URL is an address"):
        Settings(public_url="papers.example")


def test_nothing_is_shown_without_the_secret() -> None:
    there = browser(Settings("0.0.0.0", secret=SECRET), "http://192.168.0.9:8000")
    assert there.get("/form").status_code == 401
    asked = there.get("/form?x=1", headers={"Accept": "text/html"})
    assert asked.status_code == 303 and asked.headers["Location"] == "/enter?to=/form%3Fx%3D1"
    assert there.get("/form", headers={"Authorization": f"Bearer {SECRET}"}).status_code == 200
    assert there.get("/form", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert there.get("/form", headers={"Host": "evil.example"}).status_code == 421


def enter(there: TestClient, secret: str, to: str = "/form") -> tuple[int, str]:
    page = there.get("/enter", headers={"Accept": "text/html"}).text
    token = re.search(r'name="csrf" value="(\w+)"', page)
    assert token is not None
    answer = there.post("/enter", data={"csrf": token[1], "secret": secret, "to": to})
    return answer.status_code, answer.headers.get("Location", answer.text)


def test_the_secret_opens_the_page_and_cannot_be_guessed() -> None:
    there = browser(Settings("0.0.0.0", secret=SECRET), "http://192.168.0.9:8000")
    assert enter(there, "wrong")[0] == 403 and "not the secret" in enter(there, "wrong")[1]
    for to, where in {
        "/form?x=1": "/form?x=1",
        "//evil.example": "/",
        "https://evil.example": "/",
        "/\\evil": "/",
    }.items():
        assert enter(there, SECRET, to) == (303, where)
    assert there.get("/form").status_code == 200
    assert [enter(there, "wrong")[0] for _ in range(6)].count(429) >= 2
    there.cookies.set("reprise_gate", "0" * 64)
    assert browser(Settings("0.0.0.0", secret=SECRET), "http://192.168.0.9:8000").get("/form").status_code == 401


def test_behind_a_public_address_reading_is_free() -> None:
    settings = Settings(secret=SECRET, public_url="https://papers.example")
    there = browser(settings, "https://papers.example")
    assert there.get("/").status_code == 200 and there.get("/runs").status_code == 401
    assert "Secure" in there.get("/form").headers["Set-Cookie"]
    token = there.get("/form").text
    assert there.post("/subscribe", data={"csrf": token}).status_code == 200
    assert there.post("/things", data={"csrf": token}).status_code == 401
    assert there.post("/leave/1").status_code == 200


def test_host_names() -> None:
    for host, name in {
        "a.b:80": "a.b",
        "[::1]:8": "::1",
        "A": "a",
        "a/b": "",
        "a@b": "",
        "[": "",
        "": "",
        "a.": "a",
    }.items():
        assert host_name(host) == name


def test_the_key_is_made_once_and_kept_from_others(home) -> None:  # type: ignore[no-untyped-def]
    key = signing_key()
    assert len(key) == 64 and signing_key() == key
    assert (home / "site" / "key").stat().st_mode & 0o077 == 0
