"""The board in a real browser: chromium of the system, or EDGECAP_CHROMIUM."""

import os
import shutil
import threading

import pytest
from boards import (
    BASE,
    BIDI,
    HOSTILE,
    REFERENCE,
    as_published,
    many,
    named,
    replace,
    saved,
    with_joules,
)

from edgecap.record import Absent
from edgecap.report.board.board import board_page, board_values, relative_link
from edgecap.report.board.entries import entries
from edgecap.report.server import BoardApp, open_server
from edgecap.storage.collection import Collection, LoadedRecord, SkippedFile
from edgecap.storage.records import save

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("EDGECAP_CHROMIUM") or shutil.which("chromium")
if not CHROMIUM:
    pytest.skip("no chromium: install it, or name one in EDGECAP_CHROMIUM", allow_module_level=True)
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed (extra test)"
)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """Opens an address; the test fails where the page says an error or asks
    another host for anything.
    """
    wrong, contexts = [], []

    def open_it(address, width=1280, height=900, scheme="light", wait=True):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        own = address.split("/")[2]
        page.on("request", lambda r: None if is_own(r.url, own) else wrong.append(r.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("dialog", lambda dialog: (wrong.append("a dialog"), dialog.dismiss()))
        page.goto(address)
        if wait:
            page.wait_for_selector("#cells tbody tr, #pages span")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not wrong


def is_own(url, host):
    """A served page may ask its server; one from a file asks for nothing but itself."""
    url = url.partition("#")[0]
    return url.startswith(("data:", "blob:")) or (
        url.split("/")[2] == host and bool(host or url.endswith("board.html"))
    )


def some_records():
    older = named("small-model", "laptop", "2026-01-01T00:00:00Z", with_joules(BASE))
    return (
        named("small-model", "laptop", "2026-11-01T00:00:00Z", with_joules(BASE)),
        named("large-model", "laptop", "2026-11-02T00:00:00Z", slower(with_joules(BASE, 60.0), 3)),
        named(
            "small-model",
            "board",
            "2026-11-03T00:00:00Z",
            slower(with_joules(BASE, 8.0, "assumed"), 5),
        ),
        named("small-model", "server", "2026-11-04T00:00:00Z"),
        older,
    )


def slower(record, times):
    """The record of a machine that takes so many times as long to decode."""

    def cell(found):
        if not hasattr(found.outcome, "latency"):
            return found
        decode = found.outcome.latency.decode
        latency = replace(
            found.outcome.latency,
            decode=replace(decode, samples_s=tuple(s * times for s in decode.samples_s)),
        )
        return replace(found, outcome=replace(found.outcome, latency=latency))

    return replace(record, cells=tuple(cell(c) for c in record.cells))


def written(folder, found):
    path = folder / "board.html"
    path.write_text(board_page(board_values(found, lambda record: relative_link(record, folder))))
    return path.as_uri()


@pytest.fixture
def address(tmp_path):
    """A board of five records, one of them older, with two files that are none."""
    saved(tmp_path / "profiles", *some_records())
    (tmp_path / "profiles" / "torn.json").write_text("{")
    (tmp_path / "profiles" / "newer.json").write_text('{"schema": 99}')
    return written(tmp_path, Collection([tmp_path / "profiles"], entries).read())


def column(page, number):
    return page.locator(f"#cells tbody tr > :nth-child({number})").all_inner_texts()


def test_it_opens_and_tells_what_it_shows(open_page, address):
    page = open_page(address)
    cells = len(BASE.cells)
    assert f"{5 * cells} cells of 5 records: 2 models on 3 devices" in page.inner_text("#summary")
    assert page.inner_text("#status").startswith(
        f"{4 * cells} of {5 * cells} cells. {cells} older ones are hidden."
    )
    assert page.locator("#cells tbody tr").count() == 4 * cells
    told = page.inner_text("#unread")
    assert "torn.json is not a whole JSON file" in told
    assert "newer.json has schema 99" in told
    assert page.locator("#cells .failed").count() == 4
    assert "NaN for a token's probability" in page.locator("#cells .failed").first.inner_text()


def test_columns_sort_both_ways_with_absent_numbers_last(open_page, address):
    page = open_page(address)
    page.click("[data-sort=decode_s]")
    head = page.locator("th:has([data-sort=decode_s])")
    number = 1 + page.evaluate(
        "document.querySelector('[data-sort=decode_s]').closest('th').cellIndex"
    )
    assert head.get_attribute("aria-sort") == "ascending"
    rising = page.evaluate(
        "n => [...document.querySelectorAll('#cells tbody tr')].map(r => r.querySelector('.failed')"
        " ? null : parseFloat(r.cells[n - 1].firstChild.textContent))",
        number,
    )
    had = [x for x in rising if x is not None]
    assert had == sorted(had)
    assert rising == [*had, *[None] * 4]
    page.click("[data-sort=decode_s]")
    assert head.get_attribute("aria-sort") == "descending"
    assert page.locator("#cells tbody tr").last.locator(".failed").count() == 1
    assert page.evaluate("document.activeElement.dataset.sort") == "decode_s"
    page.reload()
    page.wait_for_selector("#cells tbody tr")
    assert head.get_attribute("aria-sort") == "descending"


@pytest.fixture
def ranked_address(tmp_path):
    """A board of three models with worth, one of another tokenizer, and a text without worth."""
    unscored = replace(REFERENCE[0].cells[0], score=Absent(reason="no law of this text"))
    records = (
        *REFERENCE[1:],
        replace(REFERENCE[0], cells=(unscored, *REFERENCE[0].cells[1:])),
        *(named(f"other-{n}") for n in range(5)),
    )
    return written(
        tmp_path,
        [LoadedRecord(tmp_path / f"{n}.json", entries(r)) for n, r in enumerate(records)],
    )


def test_it_ranks_by_worth_with_intervals_and_reasons_last(open_page, ranked_address):
    page = open_page(ranked_address)
    assert page.input_value("#sort") == "effective_flops_per_s"
    cells = page.locator("#cells tbody tr td:nth-child(6)")
    texts = cells.all_inner_texts()
    values = [float(words.split()[0]) for words in texts[:-1]]
    assert values == sorted(values, reverse=True)
    assert all(" to " in words for words in texts[:-1])
    assert texts[-1].split("\n") == ["–", "no law of this text"]
    assert page.locator("#cells tbody tr").count() == sum(len(r.cells) for r in REFERENCE)
    page.click("#reverse")
    assert float(cells.first.inner_text().split()[0]) == values[-1]
    assert cells.last.inner_text() == texts[-1]
    page.select_option("#sort", "file_bytes")
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("file")


def test_it_warns_where_ranks_do_not_compare(open_page, tmp_path):
    source = replace(REFERENCE[0].source, name="foreign", tokenizer_sha256="f" * 64)
    records = (*REFERENCE, replace(REFERENCE[0], source=source))
    page = open_page(
        written(
            tmp_path,
            [LoadedRecord(tmp_path / f"{n}.json", entries(r)) for n, r in enumerate(records)],
        )
    )
    warning = "These have 2 tokenizers: effective FLOP/s compares only within one."
    assert warning in page.inner_text("#status")
    assert "fronts, one for each text and tokenizer" in page.inner_text("#chart-note")
    page.select_option("#sort", "bits_per_byte")
    assert "tokenizers" not in page.inner_text("#status")
    page.select_option("#sort", "effective_flops_per_s")
    page.check("[data-facet=tokenizer][value='of foreign']")
    assert warning not in page.inner_text("#status")
    assert set(column(page, 2)) == {"foreign", "foreign ★ best"}


@pytest.mark.parametrize("width", [320, 390])
def test_no_table_scrolls_sideways_on_a_phone(open_page, ranked_address, width):
    page = open_page(ranked_address, width=width)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.select_option("#text", "")
    page.evaluate("document.querySelectorAll('#columns :not(:checked)').forEach(b => b.click())")
    wide = "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)"
    assert page.evaluate(wide) == [0, 0]
    label = "e => getComputedStyle(e, '::before').content"
    ranked = page.locator("#cells tbody tr td:nth-child(6)").first
    assert ranked.evaluate(label) == '"effective FLOP/s, GFLOP/s"'


def test_filters_narrow_and_their_counts_follow(open_page, address):
    page = open_page(address)
    page.check("[data-facet=precision][value=int8d]")
    assert page.locator("#cells tbody tr").count() == 4
    page.check("[data-facet=device][value=laptop]")
    assert page.locator("#cells tbody tr").count() == 2
    assert page.locator("label:has([value=fp16]) .count").inner_text() == "2"
    assert "2 of" in page.inner_text("#status")
    page.reload()
    page.wait_for_selector("#cells tbody tr")
    assert page.locator("#cells tbody tr").count() == 2
    assert page.is_checked("[data-facet=precision][value=int8d]")
    page.click("button[type=reset]")
    assert page.locator("#cells tbody tr").count() == 4 * len(BASE.cells)
    page.fill("#search", "LARGE int8")
    assert page.locator("#cells tbody tr").count() == 1
    page.fill("#search", "no such thing")
    assert page.inner_text("#pages") == "no cell passes these filters"


def test_older_records_come_with_a_mark(open_page, address):
    page = open_page(address)
    page.uncheck("#latest")
    assert page.locator("#cells tbody tr").count() == 5 * len(BASE.cells)
    assert page.locator("#cells .badge", has_text="older").count() == len(BASE.cells)


def test_filters_work_from_the_keyboard(open_page, address):
    page = open_page(address)
    page.focus("#latest")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.locator("[data-facet]:checked").count() == 1
    assert page.evaluate("document.activeElement.dataset.facet") == "model"


def point_at(page):
    """The middle of the first point, on the screen."""
    page.locator("#chart").scroll_into_view_if_needed()
    box = page.locator("#figure").bounding_box()
    x, y, _ = page.evaluate("board.places()[0]")
    return box["x"] + x, box["y"] + y


def test_a_point_tells_its_cell_and_opens_it(open_page, address):
    page = open_page(address)
    x, y = point_at(page)
    page.mouse.move(x, y)
    told = page.locator("#tooltip")
    told.wait_for(state="visible")
    words = told.inner_text()
    assert "-model fp32" in words
    assert "information capacity" in words
    assert "peak RAM" in words
    inside = page.evaluate(
        "(() => { const a = document.getElementById('chart').getBoundingClientRect(),"
        " b = document.getElementById('tooltip').getBoundingClientRect();"
        " return b.left >= a.left && b.right <= a.right; })()"
    )
    assert inside
    page.mouse.click(x, y)
    assert page.locator("#cell").get_attribute("open") is not None
    assert "bits per byte" in page.inner_text("#cell")
    page.keyboard.press("Escape")
    assert page.locator("#cell").get_attribute("open") is None


def test_a_cell_tells_why_a_number_is_absent_and_links_to_its_record(open_page, address):
    page = open_page(address)
    page.check("[data-facet=device][value=server]")
    page.locator("[data-open]").first.click()
    assert "absent: no RAPL counter" in page.inner_text("#cell")
    href = page.get_attribute("#cell-link", "href")
    assert href == "profiles/record-3.json"
    page.click("#cell-close")
    title = page.locator("#cells td.absent").first.get_attribute("title")
    assert "no RAPL counter" in title


def test_assumed_joules_are_marked_and_on_no_front(open_page, address):
    page = open_page(address)
    page.select_option("#across", "decode_j")
    assert "assumed joules, not measured ones; they are on no front" in page.inner_text(
        "#chart-note"
    )
    assert page.locator("#cells .badge", has_text="assumed").count() == len(BASE.cells) - 1
    assert "hollow: joules assumed" in page.inner_text("#legend")


def test_best_of_each_device_and_model_is_marked(open_page, address):
    page = open_page(address)
    page.click("[data-sort=decode_s]")
    stars = page.locator("#cells tbody tr:has(.badge.good)")
    assert stars.count() == 4
    assert all("int8" in words for words in stars.all_inner_texts())
    assert "by decode, a token" in page.inner_text("#best-note")


def test_published_values_stand_only_beside_cells_scored_alike(open_page, tmp_path):
    like = as_published(named("paper-model", "laptop"))
    page = open_page(
        written(
            tmp_path,
            [
                LoadedRecord(tmp_path / "a.json", entries(like)),
                LoadedRecord(tmp_path / "b.json", entries(BASE)),
            ],
        )
    )
    page.select_option("#across", "flops_per_token")
    page.select_option("#up", "information_capacity")
    assert "Grey diamonds: 39 published values (arXiv 2511.08066)" in page.inner_text(
        "#published-note"
    )
    assert "published" in page.inner_text("#legend")
    page.select_option("#across", "decode_s")
    assert "not drawn: they have information capacity and FLOPs only" in page.inner_text(
        "#published-note"
    )
    page.select_option("#across", "flops_per_token")
    page.select_option("#text", "")
    assert f"{len(BASE.cells) + 1} of the shown cells were scored otherwise" in page.inner_text(
        "#published-note"
    )
    page.select_option("#text", index=1)
    assert "not drawn: no shown cell was scored as they were" in page.inner_text("#published-note")
    assert "published" not in page.inner_text("#legend")


def test_texts_are_not_mixed_unless_asked(open_page, tmp_path):
    other = named("b", corpus=replace(BASE.corpus, name="other-text", sha256="0" * 64))
    page = open_page(
        written(
            tmp_path,
            [
                LoadedRecord(tmp_path / f"{n}.json", entries(r))
                for n, r in enumerate((BASE, named("a"), other))
            ],
        )
    )
    cells = len(BASE.cells)
    assert page.locator("#cells tbody tr").count() == 2 * cells
    assert f"{cells} more on other texts" in page.inner_text("#status")
    page.select_option("#text", "")
    assert page.locator("#cells tbody tr").count() == 3 * cells
    assert "fronts, one for each text" in page.inner_text("#chart-note")


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_page(open_page, address, width):
    page = open_page(address, width=width)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("[data-open]").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#cell").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_serious(open_page, address, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(address, width=width, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert not serious(axe.run(page))
    page.locator("[data-open]").first.click()
    assert not serious(axe.run(page))


def serious(found):
    return [
        (one["id"], [node["html"] for node in one["nodes"]])
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def test_a_theme_recolours_the_chart(open_page, address):
    page = open_page(address)
    colour = "getComputedStyle(document.querySelector('#figure .filled')).fill"
    before = page.evaluate(colour)
    page.click("#theme")
    page.click("#theme")
    page.wait_for_function(f"{colour} !== {before!r}")


def test_hostile_strings_stay_text(open_page, tmp_path):
    records = (
        named(HOSTILE, BIDI),
        named(BIDI, "<b onmouseover=alert(1)>x</b>"),
        named("x" * 10_000, "y" * 10_000),
    )
    name = "a'\"<img src=x onerror=alert(1)>&.json"
    found = [LoadedRecord(tmp_path / f"{n}-{name}", entries(r)) for n, r in enumerate(records)]
    page = open_page(
        written(tmp_path, [*found, SkippedFile(tmp_path / name, f"{name} {HOSTILE}")]), width=360
    )
    for facet in ("model", "device"):
        page.select_option("#colour", facet)
        page.mouse.move(*point_at(page))
        page.locator("#tooltip").wait_for(state="visible")
        page.mouse.move(0, 0)
    page.locator("[data-open]").first.click()
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main b").count() == 0
    assert HOSTILE in page.inner_text("#cells")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_single_cell_and_none_with_numbers(open_page, tmp_path):
    one = replace(BASE, cells=BASE.cells[:1])
    failed = replace(BASE, cells=tuple(c for c in BASE.cells if not hasattr(c.outcome, "latency")))
    page = open_page(written(tmp_path, [LoadedRecord(tmp_path / "a.json", entries(one))]))
    assert page.locator("#cells tbody tr").count() == 1
    page = open_page(written(tmp_path, [LoadedRecord(tmp_path / "a.json", entries(failed))]))
    assert page.locator("#cells .failed").count() == 1
    assert page.inner_text("#chart-note").startswith("0 of 1 shown cells have both numbers.")


BRUTE = """([across, up]) => {
  const data = board.read(JSON.parse(document.getElementById("board-data").textContent));
  const rows = data.cells.model.map((_, i) => i);
  const [a, u] = [data.at[across], data.at[up]];
  const x = data.columns[a], sign = data.figures[u].less ? 1 : -1;
  const y = data.columns[u].map((v) => sign * v), text = data.cells.text;
  const beats = (j, i) => text[j] === text[i] && x[j] <= x[i] && y[j] <= y[i]
    && (x[j] < x[i] || y[j] < y[i]);
  return {
    found: board.fronts(data, board.drawable(data, rows, a, u), a, u).flat().sort((i, j) => i - j),
    expected: rows.filter((i) => !rows.some((j) => beats(j, i))),
  };
}"""


@pytest.mark.parametrize("up", ["information_capacity", "bits_per_byte"])
def test_no_cell_beats_one_on_the_front(open_page, tmp_path, up):
    page = open_page(written(tmp_path, many(400, tmp_path)))
    front = page.evaluate(BRUTE, ["decode_s", up])
    assert len(front["found"]) > 1
    assert front["found"] == front["expected"]


def test_ten_thousand_cells_stay_usable(open_page, tmp_path, capsys):
    page = open_page(written(tmp_path, many(10_000, tmp_path)))
    assert page.locator("#cells tbody tr").count() == 100
    assert "an even sample are drawn" in page.inner_text("#chart-note")
    assert 1500 <= page.evaluate("board.places().length") < 1600
    boxes = ["[data-facet=precision][value=int8]", "[data-facet=device]", "[data-facet=model]"]
    spent = sorted(page.evaluate(TIMED, boxes * 3))
    with capsys.disabled():
        print(
            f"\na filter on 10,000 cells: {spent[0]:.0f} to {spent[-1]:.0f} ms,"
            f" median {spent[9]:.0f} ms",
            flush=True,
        )
    page.click("button[type=reset]")
    page.click("#pages >> text=Last")
    assert page.inner_text("#pages span").endswith(page.inner_text("#status").split()[0])
    last = page.locator("#cells tbody tr").last
    assert last.locator("[data-open]").inner_text() == page.inner_text("#status").split()[
        0
    ].replace(",", "")


# Clicks each box on and off; milliseconds until the page is laid out anew.
TIMED = """boxes => boxes.flatMap((box) => [0, 1].map(() => {
  const began = performance.now();
  document.querySelector(box).click();
  document.body.getBoundingClientRect();
  return performance.now() - began;
}))"""


def test_a_served_board_takes_new_records_and_keeps_its_filters(open_page, tmp_path):
    folder = saved(tmp_path / "profiles", named("first", "laptop"))
    with open_server(BoardApp(Collection([folder], entries)), 0) as server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        page = open_page(f"http://127.0.0.1:{server.server_address[1]}/")
        page.check("[data-facet=precision][value=int8d]")
        assert page.locator("#cells tbody tr").count() == 1
        save(named("second", "board"), folder / "second.json")
        page.wait_for_selector("#cells tbody tr >> nth=1", timeout=20_000)
        assert page.locator("#cells tbody tr").count() == 2
        assert page.is_checked("[data-facet=precision][value=int8d]")
        assert page.evaluate("document.activeElement.value") == "int8d"
        assert "second" in page.inner_text("#facets")
        assert "Live" in page.inner_text("#live")
        with page.expect_navigation():
            page.locator("#cells a").first.click()
        assert '"schema"' in page.inner_text("body")
        server.shutdown()
