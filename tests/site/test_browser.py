"""The pages in Chromium: without violations that axe finds, by keyboard, narrow, dark, in print and without scripts."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from reprise.site.app import create_app
from reprise.site.queue import Queue
from reprise.site.settings import Settings

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = "axe-core@4.14.1"  # from the npm registry, kept in pytest's cache, never part of the repository
TAB, ENTER, END = "\ue004", "\ue007", "\ue010"
PAGES = ["/", "/papers", "/papers/coin", "/papers/coin/numbers", "/papers/grad-cam", "/papers/cnn-explainer", "/claims",
         "/log", "/verdicts", "/speed", "/parts", "/parts/explain", "/parts/explain/GradCAM", "/runs", "/runs/new",
         "/runs/new?paper=coin", "/runs/1", "/feed", "/feed/2017-W24", "/feed/trending", "/feed/sources",
         "/arxiv/1706.03762", "/search", "/search?q=grad", "/subscribe", "/subscribe/confirm/x", "/outbox",
         "/no/such/page"]  # fmt: skip


@pytest.fixture(scope="module")
def axe(pytestconfig: pytest.Config) -> str:
    """The source of axe-core."""
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("axe")
    kept = folder / f"{AXE}.js"
    if not kept.is_file():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed: axe-core cannot be fetched, and accessibility is not checked by it")
        done = subprocess.run(["npm", "pack", AXE, "--silent"], cwd=folder, capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip(f"npm cannot fetch {AXE}, so accessibility is not checked by it: {done.stderr[-200:]}")
        with tarfile.open(folder / done.stdout.split()[-1]) as archive:
            source = archive.extractfile("package/axe.min.js")
            assert source is not None
            kept.write_bytes(source.read())
    return kept.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not CHROMIUM or not DRIVER:
        pytest.skip("Chromium and its driver are not installed: the pages cannot be looked at")
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: nothing drives Chromium")
    from selenium.webdriver.chrome.service import Service

    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def base(published: Path, shelf: Path) -> Iterator[str]:
    """The address of a running server that has one published toy paper and one run that ended."""
    queue = Queue()
    number = queue.add("coin", "smoke")
    queue.stop(number)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(create_app(Settings(port=port)), log_level="error", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
    bound.close()


class Browser:
    """The browser, and what a reader does with it."""

    def __init__(self, driver: Any, base: str) -> None:
        self.driver, self.base = driver, base
        self.show(1280)
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        driver.get_log("browser")

    def show(self, width: int, theme: str = "light", media: str = "", height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def open(self, path: str) -> None:
        self.driver.get(self.base + path)

    def arrive(self, path: str) -> None:
        """Wait for the page to which a click leads: a click does not wait for it."""
        deadline = time.monotonic() + 60
        while path not in self.driver.current_url:
            assert time.monotonic() < deadline, f"{self.driver.current_url} instead of {path}"
            time.sleep(0.1)

    def js(self, code: str) -> Any:
        return self.driver.execute_script(f"return {code}")

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def tab(self) -> None:
        """Press the Tab key, at once: on a busy machine the driver's own way takes half a second."""
        key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
        for kind in ("keyDown", "keyUp"):
            self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, **key})

    def errors(self) -> list[str]:
        found = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [each for each in found if "/no/such/page" not in each]


@pytest.fixture
def browser(chromium: Any, base: str) -> Iterator[Browser]:
    opened = Browser(chromium, base)
    yield opened
    assert opened.errors() == []  # also what the page's policy would have refused
    chromium.get("about:blank")  # a live page would ask a server that is gone, in the time of the next test


def violations(browser: Browser, axe: str) -> list[str]:
    browser.driver.execute_script(axe)
    found = browser.driver.execute_async_script(
        "const done = arguments[0]; axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa',"
        " 'best-practice']}).then(result => done(result.violations))"
    )
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize("path", PAGES)
def test_accessible_and_narrow_in_both_themes(browser: Browser, axe: str, path: str) -> None:
    browser.open(path)
    for theme in ("light", "dark"):
        browser.show(1280, theme)
        assert violations(browser, axe) == []
    for width in (320, 768):
        browser.show(width)
        assert browser.js("document.documentElement.scrollWidth") <= width, f"{path} scrolls sideways at {width} pixels"
    small = browser.js(  # links within a sentence are exempt
        "[...document.querySelectorAll('a, button, input, select, summary')].filter(each => each.offsetParent &&"
        " getComputedStyle(each).display !== 'inline' && each.getBoundingClientRect().height < 24)"
        ".map(each => each.outerHTML)"
    )
    assert small == [], "targets are at least 24 pixels high"


def test_by_keyboard_alone(browser: Browser) -> None:
    browser.open("/")
    browser.press(TAB)
    assert browser.js("document.activeElement.className") == "skip"
    browser.press(ENTER)
    assert browser.js("document.activeElement.id") == "content"
    for path, wanted in {
        "/papers/coin": ("Measure it here", "Every seed of claim 1"),
        "/feed": ("Trending", "Filter"),
        "/search?q=grad": ("Search", "Tell me of new papers for this search"),
        "/subscribe": ("Subscribe", "the feed"),
    }.items():
        browser.open(path)
        seen = walked(browser)
        assert set(wanted) <= set(seen), f"{path}: {seen}"


def walked(browser: Browser) -> list[str]:
    """What has the focus from one press of the Tab key to the next, from the top of a page to its end."""
    seen: list[str] = []
    for _ in range(60):
        browser.tab()
        at = browser.js(
            "(() => {const each = document.activeElement, box = each.getBoundingClientRect();"
            "return [each.tagName, each.textContent.trim(), getComputedStyle(each).outlineStyle,"
            " box.bottom > 0 && box.top < innerHeight]})()"
        )
        if at[0] == "BODY":
            break
        assert at[2] != "none" and at[3], f"{at[0]} {at[1]!r} has the focus, and it is not seen"
        seen.append(at[1])
    return seen


def test_a_search_by_keyboard(browser: Browser) -> None:
    browser.open("/search")
    for _ in range(20):
        browser.tab()
        if browser.js("document.activeElement.id") == "q":
            break
    browser.press(*"grad-cam", ENTER)
    browser.arrive("/search?q=grad-cam")
    assert "Found for" in browser.js("document.querySelector('h1').textContent")


def test_without_scripts_everything_is_there(browser: Browser) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.open("/runs/new?paper=coin")
    from selenium.webdriver.common.by import By

    browser.driver.find_element(By.CSS_SELECTOR, "input[value=smoke]").click()
    browser.driver.find_element(By.CSS_SELECTOR, "main button").click()
    browser.arrive("/runs/2")
    deadline = time.monotonic() + 60
    while "Finished" not in browser.driver.page_source:
        assert time.monotonic() < deadline
        time.sleep(0.5)
        with contextlib.suppress(Exception):
            browser.driver.find_element(By.CSS_SELECTOR, ".reload").click()
    assert "this run, smoke scale" in browser.driver.page_source


def test_a_run_is_watched_live(browser: Browser) -> None:
    browser.open("/runs/new?paper=coin")
    browser.js("document.querySelector('input[value=laptop]').click()")
    browser.js("document.querySelector('main form button').click()")
    browser.arrive("/runs/2")
    browser.js("window.stays = true")
    deadline = time.monotonic() + 60
    while browser.js("document.querySelector('[data-state]').dataset.state") != "finished":
        assert time.monotonic() < deadline, "the page does not follow the run"
        time.sleep(0.2)
    assert browser.js("window.stays"), "the page was loaded again instead of following"
    assert browser.js("document.querySelectorAll('.versus .seed').length") >= 10
    assert browser.js("document.getElementById('said').textContent") == "The run is finished."


@pytest.mark.parametrize("path", ["/papers/coin", "/feed", "/search?q=grad", "/subscribe"])
def test_motion_and_print(browser: Browser, path: str) -> None:
    browser.open(path)
    durations = "[...document.querySelectorAll('*')].map(each => getComputedStyle(each).transitionDuration)"
    assert set(browser.js(durations)) == {"0s"}
    browser.show(800, media="print")
    hidden = "getComputedStyle(document.querySelector('{}')).display"
    assert browser.js(hidden.format(".top nav")) == "none" and browser.js(hidden.format(".source")) != "none"
    assert browser.js("document.querySelector('.source').textContent").endswith(path.partition("?")[0])
    assert browser.js("[...document.querySelectorAll('form')].every(each => !each.offsetParent)")


def test_the_explainer_is_opened_on_the_net_that_was_measured(browser: Browser, home: Path) -> None:
    import torch

    from reprise.explain import export_web
    from reprise.lab import paper as papers, results
    from reprise.nn import TinyVGG

    trial = results.published(papers.find("cnn-explainer"))["recipe"]["laptop"]["trials"][0]
    folder = home / "runs" / "cnn-explainer" / "recipe" / "tiny_vgg-0-x"
    export_web(TinyVGG(16, 1, 2, 3).eval(), folder, ["a", "b", "c"], torch.rand(2, 1, 16, 16))
    record = {"identity": {"arm": trial["arm"], "seed": trial["seed"]}, "metrics": trial["metrics"], "counts": {},
              "curves": {}, "pictures": [], "seconds": 1.0, "prepare": {}, "finished": ""}  # fmt: skip
    (folder / "trial.json").write_text(json.dumps(record))
    browser.open("/papers/cnn-explainer")
    assert "the net that was measured" in browser.js("document.body.textContent")
    from selenium.webdriver.common.by import By

    browser.driver.find_element(By.PARTIAL_LINK_TEXT, f"{trial['arm']}, seed").click()
    assert browser.js("cnnExplainer.app.overview.groups.length") == 12  # its own scripts have drawn the columns
    assert browser.js("cnnExplainer.app.network.simd !== null")  # WebAssembly may run there, as on the page by itself
    assert browser.js("self.origin") == "null"  # it gets no part of this site
