"""The page clicked through in a headless browser, with a real engine behind it."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from streaming.preview.message import unpack

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
from selenium.common.exceptions import (  # noqa: E402
    ElementClickInterceptedException,
    NoSuchElementException,
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver.chrome.service import Service  # noqa: E402

_PATIENCE_S = 120.0
SOURCE = "room=demo://?live=1&frames=0&size=240x428&static_camera=1&fps=12"
OTHER = "yard=demo://?live=1&frames=0&size=240x428&static_camera=1&fps=2&seed=1"


def wait_for(condition: Callable[[], object], what: str) -> object:
    """The first true value of `condition`."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} within {_PATIENCE_S:.0f} s"
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def engine(motion_model: Path) -> Iterator[str]:
    """Address of the page of a running engine."""
    command = [sys.executable, "-m", "engine.run", "--source", SOURCE, "--source", OTHER, "--no-publish"]
    process = subprocess.Popen(
        [*command, "--model", str(motion_model), "--preview", "0"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines: list[str] = []
    try:
        for line in process.stderr:
            lines.append(line)
            if "live page: " in line:
                break
        else:
            pytest.fail("the engine ended: " + "".join(lines))
        yield line.rpartition("live page: ")[2].strip()
        assert process.poll() is None, "the engine did not survive its viewers"
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=120)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


def started(options: "webdriver.ChromeOptions", driver: str) -> "webdriver.Chrome":
    """A browser; the driver gives it a minute to start, which a machine with much else to do may exceed."""
    for _ in range(2):
        with contextlib.suppress(WebDriverException):
            return webdriver.Chrome(options=options, service=Service(driver))
    return webdriver.Chrome(options=options, service=Service(driver))


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator["webdriver.Chrome"]:
    """Chromium without a window, the size of a phone."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs a browser: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # Containers have neither user namespaces nor much shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=390,844")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    made = started(options, driver)
    made.set_page_load_timeout(_PATIENCE_S)
    made.set_script_timeout(_PATIENCE_S)
    yield made
    made.quit()


@pytest.fixture
def page(browser: "webdriver.Chrome", engine: str) -> Iterator["webdriver.Chrome"]:
    browser.get(engine)
    wait_for(lambda: text(browser, "state") in ("live", "paused"), "a state")
    yield browser
    problems = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert problems == []


def text(page: "webdriver.Chrome", name: str) -> str:
    return page.find_element("id", name).text


def said(page: "webdriver.Chrome") -> str:
    """What the page told last, whether it is shown any more or not."""
    return page.find_element("id", "toast").get_attribute("textContent")


def pixels(page: "webdriver.Chrome") -> np.ndarray:
    """What is drawn on the big canvas, without masks if they are switched off: uint8 [h, w, 3]."""
    rgba = page.execute_script(
        "const s = document.createElement('canvas'), x = s.getContext('2d'); s.width = 64; s.height = 36;"
        "x.drawImage(document.getElementById('view'), 0, 0, 64, 36);"
        "return Array.from(x.getImageData(0, 0, 64, 36).data)"
    )
    return np.array(rgba, np.uint8).reshape(36, 64, 4)[..., :3]


def cards(page: "webdriver.Chrome") -> list[dict[str, object]]:
    """Id and whether it is followed, of each card."""
    return page.execute_script(
        "return [...document.querySelectorAll('.card')].map(c => ({id: +c.querySelector('.name').textContent.slice(1),"
        " followed: c.getAttribute('aria-pressed') === 'true'}))"
    )


def still(page: "webdriver.Chrome") -> np.ndarray:
    """What is drawn once nothing more arrives: the same in three looks half a second apart."""
    looks: list[np.ndarray] = []

    def rests() -> bool:
        looks.append(pixels(page))
        time.sleep(0.5)
        return len(looks) > 3 and all(np.array_equal(look, looks[-1]) for look in looks[-3:])

    wait_for(rests, "a picture that stands still")
    return looks[-1]


def click_card(page: "webdriver.Chrome", selector: str) -> None:
    """Click a card; another one if it has gone with its object meanwhile."""

    def clicked() -> bool:
        try:
            page.find_element("css selector", selector).click()
        except (StaleElementReferenceException, NoSuchElementException, ElementClickInterceptedException):
            return False
        return True

    wait_for(clicked, f"a click on {selector}")


def press(page: "webdriver.Chrome", name: str) -> None:
    page.find_element("id", name).click()


def test_the_command_serves_the_page_and_its_frames(engine: str) -> None:
    with urllib.request.urlopen(engine, timeout=60) as reply:
        assert b"<title>unseen</title>" in reply.read()

    def frame() -> object:
        with urllib.request.urlopen(f"{engine}feed?viewer=t&source=yard&after=0", timeout=60) as reply:
            state, _, jpeg = unpack(reply.read())
        assert [item["name"] for item in state["sources"]] == ["room", "yard"]
        return jpeg.startswith(b"\xff\xd8") and state["view"] == [120, 214]

    wait_for(frame, "a frame")


def test_the_picture_moves_and_the_list_fills(page: "webdriver.Chrome") -> None:
    wait_for(lambda: pixels(page).std() > 10, "a picture")
    first = pixels(page).astype(int)
    wait_for(lambda: np.abs(pixels(page) - first).max() > 40, "another picture")
    wait_for(lambda: cards(page), "a card")
    wait_for(lambda: "network" in text(page, "legend") and "median" in text(page, "age-text"), "charts")
    latency = page.execute_script(
        "const c = document.getElementById('latency');"
        "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0)"
    )
    assert latency


def test_the_page_fits_a_phone(page: "webdriver.Chrome") -> None:
    wait_for(lambda: cards(page), "a card")
    inner, wide = page.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert wide <= inner
    for name in ("pause", "snapshot", "masks", "theme"):
        size = page.find_element("id", name).size
        assert min(size["width"], size["height"]) >= 40, name


def test_everything_that_can_be_pressed_has_a_name(page: "webdriver.Chrome") -> None:
    wait_for(lambda: cards(page), "a card")
    nameless = page.execute_script(
        "return [...document.querySelectorAll('button, a, canvas[role=img]')].filter(e => !(e.textContent.trim()"
        " || e.getAttribute('aria-label') || document.getElementById(e.getAttribute('aria-labelledby'))))"
        ".map(e => e.outerHTML)"
    )
    assert nameless == []


def test_a_click_follows_an_object_and_another_one_lets_it_go(page: "webdriver.Chrome") -> None:
    wait_for(lambda: cards(page), "a card")
    before = {card["id"] for card in cards(page)}
    click_card(page, ".card")
    followed = wait_for(lambda: [card["id"] for card in cards(page) if card["followed"]], "a followed object")
    assert isinstance(followed, list)
    assert followed[0] not in before
    assert f"#{followed[0]}" in said(page)
    # Whether it is in sight now or not, its card is there.
    click_card(page, ".card[aria-pressed=true]")
    wait_for(lambda: not any(card["followed"] for card in cards(page)), "letting go")


def test_a_click_into_the_picture_follows_what_is_there(page: "webdriver.Chrome") -> None:
    wait_for(lambda: cards(page), "a card")
    page.find_element("id", "view").click()
    wait_for(lambda: "Following it as #" in said(page), "an answer")


def test_pause_stops_the_picture_and_go_on_moves_it(page: "webdriver.Chrome") -> None:
    wait_for(lambda: pixels(page).std() > 10, "a picture")
    press(page, "pause")
    wait_for(lambda: text(page, "state") == "paused", "the pause")
    held = still(page)
    assert "Go on" in text(page, "pause")
    press(page, "pause")
    wait_for(lambda: text(page, "state") == "live", "the end of the pause")
    wait_for(lambda: not np.array_equal(pixels(page), held), "another picture")


def test_a_snapshot_is_downloaded_as_picture_and_masks(page: "webdriver.Chrome", downloads: Path) -> None:
    wait_for(lambda: cards(page), "a card")
    press(page, "snapshot")
    wait_for(lambda: page.find_element("id", "shot-png").is_displayed(), "the dialog")
    wait_for(lambda: page.execute_script("return document.getElementById('shot-picture').naturalWidth") == 428, "it")
    press(page, "shot-png")
    press(page, "shot-json")
    (picture,) = wait_for(lambda: list(downloads.glob("*.png")), "the picture")
    (masks,) = wait_for(lambda: list(downloads.glob("*.json")), "the masks")
    assert picture.stem == masks.stem
    assert cv2.imread(str(picture)).shape == (240, 428, 3)
    described = json.loads(masks.read_text())
    assert described["source"] == "room"
    assert sum(length for _, length in described["label_runs"]) == 240 * 428
    press(page, "shot-close")


def test_masks_can_be_hidden(page: "webdriver.Chrome") -> None:
    wait_for(lambda: cards(page), "a card")
    press(page, "pause")
    wait_for(lambda: text(page, "state") == "paused", "the pause")
    shown = still(page).astype(int)
    press(page, "masks")
    wait_for(lambda: np.abs(pixels(page) - shown).max() > 20, "the picture without masks")
    press(page, "masks")
    wait_for(lambda: np.array_equal(pixels(page), shown), "the masks")
    press(page, "pause")
    wait_for(lambda: text(page, "state") == "live", "the end of the pause")


def test_another_source_is_one_click_away(page: "webdriver.Chrome") -> None:
    wait_for(lambda: pixels(page).std() > 10, "a picture")
    first, second = page.find_elements("css selector", ".source")
    assert (first.get_attribute("aria-pressed"), second.get_attribute("aria-pressed")) == ("true", "false")
    before = pixels(page).astype(int)
    second.click()
    wait_for(lambda: np.abs(pixels(page) - before).mean() > 15 and pixels(page).std() > 10, "the other scene")
    assert second.get_attribute("aria-pressed") == "true"


def test_light_and_dark(page: "webdriver.Chrome") -> None:
    def background() -> str:
        return page.execute_script("return getComputedStyle(document.documentElement).backgroundColor")

    before = background()
    press(page, "theme")
    assert background() != before
    press(page, "theme")
    assert background() == before
