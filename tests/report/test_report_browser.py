"""The page as a browser shows it. The first tests prove that the checks see what they are there for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from browser import Browser

from tutelage.report import write_report
from tutelage.report.page import CONTENTS

NAMES = ["classification-pass", "classification-fail", "embedding-pass", "regression-inconclusive", "verdict-only"]
UNFOLD = "document.querySelectorAll('details').forEach((d) => { d.open = true; })"
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def spoilt(bundle: Path, addition: str, *, policy: bool = True) -> Path:
    """A page with something added that must not be there."""
    text = write_report(bundle).read_text(encoding="utf-8")
    text = text if policy else POLICY.sub("", text)
    page = bundle / "spoilt.html"
    page.write_text(text.replace("</main>", f"{addition}</main>"), encoding="utf-8")
    return page


def test_the_check_would_see_an_outside_image(browser: Browser, bundle: Path) -> None:
    browser.visit(spoilt(bundle, '<img src="http://127.0.0.1:9/outside.png">', policy=False))
    assert browser.requests() == ["http://127.0.0.1:9/outside.png"]
    assert any("ERR_" in message for message in browser.errors())


def test_the_page_forbids_an_outside_image_by_its_own_policy(browser: Browser, bundle: Path) -> None:
    browser.visit(spoilt(bundle, '<img src="http://127.0.0.1:9/outside.png">'))
    refused = [message for message in browser.errors() if "Content Security Policy" in message]
    assert len(refused) == 1
    assert "127.0.0.1:9" in refused[0]


def test_the_check_would_see_an_exception(browser: Browser, bundle: Path) -> None:
    browser.visit(spoilt(bundle, "<script>throw new Error('injected')</script>", policy=False))
    assert any("injected" in message for message in browser.errors())


def test_the_page_forbids_any_script_but_its_own(browser: Browser, bundle: Path) -> None:
    browser.visit(spoilt(bundle, "<script>document.title = 'taken over'</script>"))
    assert browser.driver.title != "taken over"
    assert any("Content Security Policy" in message for message in browser.errors())


def test_the_checks_would_see_overflow_and_faint_text(browser: Browser, bundle: Path) -> None:
    wide = '<div style="width:3000px;color:#999;background:#aaa">faint</div>'
    browser.visit(spoilt(bundle, wide))
    assert browser.overflow() > 1000
    assert browser.contrasts()[0][0] < 1.5


@pytest.mark.parametrize("name", NAMES)
def test_no_console_error_and_no_outside_request(browser: Browser, bundles: dict[str, Path], name: str) -> None:
    browser.visit(bundles[name] / "report.html")
    assert browser.run("return document.readyState") == "complete"
    assert browser.requests() == []
    assert browser.errors() == []


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_never_wider_than_its_window(browser: Browser, bundles: dict[str, Path], name: str) -> None:
    browser.visit(bundles[name] / "report.html")
    browser.run(UNFOLD)
    over = {}
    for width in (360, 390, 720, 721, 1120, 1280, 1600):
        browser.resize(width)
        assert browser.run("return innerWidth") == width
        over[width] = browser.overflow()
    assert {width: pixels for width, pixels in over.items() if pixels > 0} == {}


@pytest.mark.parametrize("name", NAMES)
def test_no_column_is_cut_off_at_a_common_width_and_where_one_is_a_shadow_shows_it(
    browser: Browser, bundles: dict[str, Path], name: str
) -> None:
    browser.visit(bundles[name] / "report.html")
    browser.resize(1280)
    wider = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth)"
    assert browser.run(f"return {wider}.map((e) => e.firstElementChild.className)") == []
    browser.resize(390)
    backgrounds = browser.run(f"return {wider}.map((e) => getComputedStyle(e).backgroundAttachment)")
    assert all({"local", "scroll"} <= set(each.split(", ")) for each in backgrounds)


@pytest.mark.parametrize("name", NAMES)
def test_every_section_is_shown_and_linked(browser: Browser, bundles: dict[str, Path], name: str) -> None:
    browser.visit(bundles[name] / "report.html")
    shown = browser.run(
        "return [...document.querySelectorAll('main > section')].filter((s) => s.offsetHeight > 60).map((s) => s.id)"
    )
    links = browser.run("return [...document.querySelectorAll('nav a')].map((a) => a.getAttribute('href').slice(1))")
    assert shown == links == [key for key in CONTENTS if key != "asking"]  # shown where there were rounds


@pytest.mark.parametrize("name", NAMES)
def test_all_text_is_readable_in_both_schemes(browser: Browser, bundles: dict[str, Path], name: str) -> None:
    browser.visit(bundles[name] / "report.html")
    browser.run(UNFOLD)
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        contrasts = browser.contrasts()
        assert len(contrasts) > 25
        assert [c for c in contrasts if c[0] < 4.5] == []
        paper = browser.run("return getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(n) for n in re.findall(r"\d+", paper)[:3]) / 3
        assert (brightness < 60) == (scheme == "dark")


def test_the_button_turns_a_light_page_dark(browser: Browser, bundles: dict[str, Path]) -> None:
    browser.visit(bundles["embedding-pass"] / "report.html")
    before = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.run("document.getElementById('theme').click()")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != before


def test_the_pointer_is_told_the_point_it_is_at(browser: Browser, bundles: dict[str, Path]) -> None:
    browser.visit(bundles["classification-pass"] / "report.html")
    browser.run("document.querySelector('#training').scrollIntoView({behavior: 'instant'})")
    browser.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    first = browser.run(
        """const area = document.querySelector("#training [data-points]");
        const box = area.getBoundingClientRect();
        const [x, y, text] = JSON.parse(area.dataset.points)[0];
        area.dispatchEvent(new PointerEvent("pointermove",
          {clientX: box.left + x * box.width + 2, clientY: box.top + y * box.height}));
        return text;"""
    )
    tip = browser.run("const t = document.getElementById('tip'); return [t.hidden, t.textContent, t.offsetHeight > 10]")
    assert tip == [False, first, True]
    assert "at step" in first


def test_html_in_a_test_row_is_shown_and_not_run(browser: Browser, bundle: Path) -> None:
    attack = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>\"'></blockquote>&lt;"
    items = [{"row": 1, "score": 1.0, "label": attack, "teacher": attack, "student": attack, "input": attack}]
    (bundle / "disagreements.json").write_text(json.dumps({"kind": "text", "items": items}))
    # Without the policy, so that it is the escaping that is tested.
    browser.visit(spoilt(bundle, "", policy=False))
    assert browser.driver.title != "run"
    assert browser.run("return document.querySelectorAll('script').length") == 1
    assert browser.run("return document.querySelector('#disagreements blockquote').textContent") == attack
    assert browser.errors() == []
