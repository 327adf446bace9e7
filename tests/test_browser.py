"""The report in a real browser: what strangers see first, by mouse, by keyboard,
on a phone, on paper.
"""

import os
import re
import shutil

import pytest
from pages import (
    MEASURED,
    RECORD,
    failed,
    hostile,
    many,
    replace,
    tokens_by_domain,
    tokens_by_language,
    two_machines,
    with_energy,
    with_operators,
)

from edgecap.report.page.report import html

BROWSER = os.environ.get("EDGECAP_CHROMIUM") or shutil.which("chromium")
try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright
except ImportError:
    BROWSER = None

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        BROWSER is None,
        reason="needs chromium (or EDGECAP_CHROMIUM), playwright and axe-playwright-python",
    ),
]

CASES = {
    "whole": lambda: [with_operators(with_energy())],
    "failures": lambda: [RECORD],
    "one cell": lambda: [replace(MEASURED, cells=MEASURED.cells[:1])],
    "nothing": lambda: [failed()],
    "two machines": two_machines,
    "hostile": lambda: [hostile()],
    "20 cells": lambda: [many(20)],  # where figures scroll: past that only the numbers grow
    "300 cells": lambda: [many()],
}
TOKENS = {"tokens by domain": tokens_by_domain, "tokens by language": tokens_by_language}
PAGES = (*CASES, *TOKENS)
WORST = ("serious", "critical")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pages by case, each made once."""
    made = {}

    def file(case):
        if case not in made:
            path = tmp_path_factory.mktemp("pages") / "report.html"
            path.write_text(
                TOKENS[case](path.parent) if case in TOKENS else html(CASES[case]()), "utf-8"
            )
            made[case] = path.as_uri()
        return made[case]

    return file


def until(page, truth):
    """Waits for it as people do; the page's own policy forbids what wait_for_function does."""
    for _ in range(200):
        if page.evaluate(truth):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {truth}")


def open_page(browser, address, *, width=1200, height=900, **options):
    """A page of its own, which notes what it asks for and what goes wrong in it."""
    viewport = {"width": width, "height": height}
    context = browser.new_context(viewport=viewport, **{"color_scheme": "light", **options})
    context.set_default_timeout(120_000)  # a busy machine parses 5 MB slowly
    page = context.new_page()
    page.asked, page.wrong = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on(
        "console",
        lambda message: (
            page.wrong.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("dialog", lambda dialog: (page.wrong.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    return page


def close(page, address):
    """Nothing was asked of any host, and nothing went wrong in the page."""
    assert [u for u in page.asked if not u.startswith(("data:", "blob:"))] == [address]
    assert page.wrong == []
    assert page.evaluate("window.evil") is None
    page.context.close()


@pytest.fixture
def opened(browser, files):
    """Opens a case for one test."""
    pages = []

    def open_case(case, drawn=True, **options):
        page = open_page(browser, files(case), **options)
        if drawn:
            page.evaluate("edgecap.drawAll()")
        pages.append((page, files(case)))
        return page

    yield open_case
    for page, address in pages:
        close(page, address)


@pytest.fixture(scope="module")
def whole(browser, files):
    """A page for all tests that look at it, open what is folded, and point at things."""
    page = open_page(browser, files("whole"))
    page.evaluate("edgecap.drawAll()")
    yield page
    close(page, files("whole"))


LARGE = "300 cells"
SHOWN = [
    pytest.param(c, marks=pytest.mark.core) if c == "whole" else c for c in PAGES if c != LARGE
]


@pytest.fixture(scope="module", params=SHOWN)
def shown(browser, files, request):
    """The page of a case, opened on a phone, for all tests that leave it as it is."""
    page = open_page(browser, files(request.param), width=360, height=740)
    page.evaluate("edgecap.drawAll()")
    page.case = request.param
    yield page
    close(page, files(request.param))


def settle(page):
    """Waits until the page has drawn its figures anew, as it does 250 ms after a change of size."""
    page.evaluate("new Promise((done) => setTimeout(done, 400))")


def resize(page, width, height):
    if page.viewport_size != {"width": width, "height": height}:
        page.set_viewport_size({"width": width, "height": height})
        settle(page)


def check_widths(page):
    for width in (360, 800):
        resize(page, width, 740)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = page.evaluate(
            """(width) => [...document.querySelectorAll("main *")].filter((e) =>
                !e.closest(".scroll, svg, [data-figure]")
                && e.getBoundingClientRect().right > width + 1
            ).map((e) => e.outerHTML.slice(0, 80))""",
            width,
        )
        assert wide == []


def check_figures(page):
    wrong = page.evaluate(
        """() => [...document.querySelectorAll("[data-figure]")].flatMap((div) => {
            const {template, ...layout} = div.layout;
            const wrong = Plotly.validate(div.data, layout) || [];
            return wrong.map((one) => div.dataset.figure + ": " + one.msg);
        })"""
    )
    assert wrong == []


def test_nothing_is_wider_than_the_screen(shown):
    """On a phone, and on a screen that becomes wider."""
    check_widths(shown)


def test_opens_and_every_figure_is_what_plotly_takes(shown):
    resize(shown, 1200, 900)
    check_figures(shown)
    if shown.case == "whole":
        figures = shown.evaluate(
            "[...document.querySelectorAll('[data-figure]')].map((div) => div.dataset.figure)"
        )
        for name in (
            "capacity",
            "time",
            "memory",
            "roofline",
            "energy",
            "split",
            "worth-decode_s",
            "worth-decode_j",
            "worth-file_bytes",
            "distribution",
            "domains",
        ):
            assert f"figure-{name}" in figures
        marks = shown.evaluate(
            "document.querySelectorAll("
            "'[data-figure] .points path, [data-figure] .bars path').length"
        )
        assert marks > 30


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(shown, scheme):
    resize(shown, 1200, 900)
    if scheme == "dark":
        light = shown.evaluate(GROUND)
        shown.emulate_media(color_scheme="dark")
        until(shown, f"{GROUND} !== {light!r}")
        settle(shown)
    shown.evaluate("document.querySelectorAll('details').forEach((d, n) => { d.open = n < 3; })")
    found = Axe().run(shown).response["violations"]
    serious = [
        f"{v['id']}: {v['help']}: {[n['html'][:120] for n in v['nodes'][:3]]}"
        for v in found
        if v["impact"] in WORST
    ]
    assert serious == []
    shown.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = false; })")
    shown.emulate_media(color_scheme="light")
    settle(shown)


def test_the_decision_is_on_the_first_screen(shown):
    """On a laptop and on a phone, of a model with one decision."""
    for width, height in ((1280, 800), (390, 844)):
        resize(shown, width, height)
        shown.evaluate("scrollTo(0, 0)")
        ends = shown.evaluate(
            "[...document.querySelectorAll('.verdict, .decision tbody')]"
            ".map((e) => e.getBoundingClientRect().bottom)"
        )
        if shown.case in ("whole", "failures", "one cell", "nothing"):
            assert max(ends) <= height
            assert (len(ends) > 1) == (shown.case in ("whole", "failures"))


def test_no_table_scrolls_sideways_on_a_phone(shown):
    resize(shown, 390, 844)
    shown.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    wide = shown.evaluate(
        "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth)"
        ".map((e) => e.getAttribute('aria-label'))"
    )
    shown.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = false; })")
    assert wide == []


def test_a_value_on_a_phone_stands_under_the_name_of_its_column(shown):
    resize(shown, 390, 844)
    unnamed = shown.evaluate(
        "[...document.querySelectorAll('table[data-stacked] tbody tr > :not(:first-child)')]"
        ".filter((cell) => !cell.dataset.label).length"
    )
    assert unnamed == 0


def test_three_hundred_cells_fit_and_are_drawn(opened):
    page = opened(LARGE, drawn=False, width=360, height=740)
    check_widths(page)
    page.evaluate("edgecap.drawAll()")
    check_figures(page)


TALL = "[...document.querySelectorAll('[data-figure]')].filter((div) => div.clientHeight > 900)"


def test_large_figures_wait_until_they_come_near_and_small_ones_until_there_is_time(opened):
    page = opened(LARGE, drawn=False, height=600)
    small = (
        "[...document.querySelectorAll('[data-figure]')].filter((div) => div.clientHeight <= 900)"
    )
    until(page, f"{small}.every((div) => div.matches('.js-plotly-plot'))")
    waiting = f"{TALL}.filter((div) => !div.matches('.js-plotly-plot')).length"
    assert page.evaluate(waiting) > 3
    page.evaluate(f"{TALL}.at(-1).scrollIntoView()")
    until(page, f"{TALL}.at(-1).matches('.js-plotly-plot')")
    assert page.evaluate(waiting) > 0


MEASURED_VALUES = "[aria-label^='Measured values'] table"


def column(page, place):
    return page.locator(f"{MEASURED_VALUES} >> tbody tr > :nth-child({place})").all_inner_texts()


def values(page, place):
    cells = page.locator(f"{MEASURED_VALUES} >> tbody tr > :nth-child({place})")
    return [cell.get_attribute("data-value") for cell in cells.all()]


def test_a_table_sorts_by_mouse_and_by_keyboard(opened):
    page = opened("failures")
    head = page.locator(f"{MEASURED_VALUES} >> thead th").nth(4)
    assert "decode" in head.inner_text()
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = values(page, 5)
    assert rising[-1] == ""  # the failed cell has none, and stays below
    assert [float(v) for v in rising[:-1]] == sorted(float(v) for v in rising[:-1])
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    falling = values(page, 5)
    assert falling[-1] == "" and falling[:-1] == rising[:-1][::-1]
    page.locator(f"{MEASURED_VALUES} >> thead th button").nth(0).click()
    assert head.get_attribute("aria-sort") is None
    texts = column(page, 1)
    assert texts == sorted(texts)


def test_raw_numbers_sort_as_numbers(whole):
    page = whole
    page.locator("summary", has_text="Rounds").click()
    table = page.locator("details[open] table")
    table.locator("thead button", has_text="median_s").click()
    found = [float(text) for text in table.locator("tbody tr > :nth-child(4)").all_inner_texts()]
    assert found == sorted(found) and len(set(found)) > 3


GROUND = "getComputedStyle(document.body).backgroundColor"
INK = "document.querySelector('[data-figure] .xtick text').style.fill"


def test_the_theme_is_kept_and_figures_follow(opened):
    page = opened("whole")
    button = page.locator("#theme")
    light, ink = page.evaluate(GROUND), page.evaluate(INK)
    assert button.inner_text() == "Theme: system"
    button.click()
    assert (button.inner_text(), page.evaluate(GROUND)) == ("Theme: light", light)
    button.press("Enter")
    assert button.inner_text() == "Theme: dark"
    assert page.evaluate(GROUND) != light and page.evaluate(INK) != ink
    page.reload()
    page.asked.pop()
    page.evaluate("edgecap.drawAll()")
    assert button.inner_text() == "Theme: dark" and page.evaluate(GROUND) != light
    button.click()
    assert (button.inner_text(), page.evaluate(GROUND)) == ("Theme: system", light)


def test_the_system_theme_is_followed(opened):
    page = opened("whole")
    light, ink = page.evaluate(GROUND), page.evaluate(INK)
    page.emulate_media(color_scheme="dark")
    until(page, f"{INK} !== {ink!r}")
    assert page.evaluate(GROUND) != light


def test_a_point_tells_its_numbers(whole):
    page = whole
    mark = page.locator("#capacity + .figures [data-figure] .points path").first
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    page.wait_for_selector("#capacity + .figures .hoverlayer .hovertext")
    told = page.locator("#capacity + .figures .hoverlayer .hovertext").first.text_content()
    assert re.search(r"fp16: \w+ capacity \d\.\d{3} .*; \d\.\d{3} times the baseline's", told)


def test_hostile_names_are_shown_as_they_are(opened):
    page = opened("hostile")
    assert "</script><script>window.evil=1" in page.locator("main").inner_text()
    assert page.locator("main img, main script, main a[href^='http']").count() == 0
    drawn = " ".join(page.locator("[data-figure] .ytick text").all_text_contents())
    assert "</script><script>" in drawn
    assert page.locator("[data-figure] svg a").count() == 0


def test_each_figure_has_a_name_and_a_text(whole):
    page = whole
    for figure in page.locator("[data-figure]").all():
        for part in ("aria-labelledby", "aria-describedby"):
            assert page.locator(f"#{figure.get_attribute(part)}").inner_text().strip()


def test_a_figure_is_saved_as_svg(whole):
    page = whole
    roofline = page.locator("figure", has=page.locator("[data-figure='figure-roofline']"))
    with page.expect_download() as download:
        roofline.get_by_role("button", name="Save as SVG").click()
    assert download.value.suggested_filename == "figure-roofline.svg"


def test_paper_is_white_and_holds_the_figures(opened):
    page = opened("whole", color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    until(page, "document.documentElement.dataset.printing !== undefined")
    assert page.evaluate(GROUND) == "rgb(255, 255, 255)"
    widths = page.evaluate(
        "[...document.querySelectorAll('[data-figure] svg.main-svg')].map((s) => s.clientWidth)"
    )
    assert max(widths) <= 700
    assert not page.locator("#theme").is_visible()
    page.emulate_media(media="screen", color_scheme="dark")
    until(page, "document.documentElement.dataset.printing === undefined")
    assert page.evaluate(GROUND) != "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_browser_that_keeps_nothing_still_shows_the_page(browser, files):
    page = browser.new_context(viewport={"width": 800, "height": 600}).new_page()
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('denied'); }})"
    )
    page.goto(files("failures"))
    page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "Theme: light"
    assert wrong == []
    page.context.close()


def test_without_javascript_the_numbers_are_there(browser, files):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(files("failures"))
    assert "Figures, sorting and themes need JavaScript" in page.locator("noscript").inner_text()
    assert page.locator("figcaption").first.is_visible()
    page.context.close()
