"""The report in a real browser: what readers click, type and see."""

import itertools
import json

import pytest

from tests.tables.browser import CHROMIUM, browser
from tests.tables.conftest import make_bench
from tests.tables.test_tables_report import ATTEMPTS, report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

SHOWN = "[...document.querySelectorAll('.page')].filter(p => p.checkVisibility()).map(p => p.id)"
ALL = "[...document.querySelectorAll('.page')].map(p => p.id)"
FID_COLUMN = """[...document.querySelectorAll('#table-1 tbody.model tr')].map(
    row => row.cells[0].querySelector('a').textContent)"""


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    bench = make_bench(tmp_path_factory.mktemp("bench"))
    return report(bench, attempts=ATTEMPTS).as_uri()


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def page(tab, address):
    """The report, freshly opened on a desktop."""
    tab.requested.clear()
    tab.complaints.clear()
    tab.resize(1280, 800)
    tab.prefer("light")
    tab.open(address)
    yield tab
    assert tab.complaints == []
    asked = {url for url in tab.requested if not url.startswith(("data:", "about:"))}
    assert {url.partition("#")[0] for url in asked} == {address}


def go(page, key: str) -> None:
    page.do(f"location.hash = {json.dumps('#/' + key)}")
    page.wait_for(f"document.querySelector('.page.current').id === {json.dumps('/' + key)}")


def test_one_page_is_shown_at_a_time_and_links_lead_to_each(page):
    assert page.do(SHOWN) == ["/overview"]
    links = page.do("[...document.querySelectorAll('#pages a')].map(a => a.hash.slice(1))")
    assert sorted(links) == sorted(page.do(ALL))
    assert {"/fidelity", "/privacy", "/cost", "/dashes", "/model/sana", "/model/noise"} <= set(
        links
    )
    titles = set()
    for link in links:
        page.do(f"document.querySelector('#pages a[href=\"#{link}\"]').click()")
        page.wait_for(f"document.querySelector('#pages [aria-current]').hash === '#{link}'")
        assert page.do(SHOWN) == [link]
        titles.add(page.do("document.title"))
    assert len(titles) == len(links)


def test_the_back_button_returns_to_the_page_and_the_place_that_was_left(page):
    go(page, "fidelity")
    page.do("scrollTo(0, 700)")
    page.wait_for("history.state?.y === 700")
    go(page, "model/sana")
    assert page.do("scrollY") == 0
    page.do("history.back()")
    page.wait_for("document.querySelector('.page.current').id === '/fidelity'")
    assert page.do("scrollY") == 700


def test_an_address_of_a_table_opens_its_page_there(tab, address):
    tab.open(f"{address}#table-3")
    assert tab.do(SHOWN) == ["/privacy"]
    top = tab.do("document.getElementById('table-3').getBoundingClientRect().top")
    assert 0 <= top < 200
    tab.open(f"{address}#nothing-of-this-name")
    assert tab.do(SHOWN) == ["/overview"]


def test_without_javascript_everything_stands_one_after_another(tab, address):
    tab.resize(1280, 800)
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    tab.open(address)
    try:
        shown = tab.do(SHOWN)  # the debugger evaluates; the page's own scripts do not run
        assert shown == tab.do(ALL)
        assert len(shown) > 12
        assert not tab.do("document.documentElement.classList.contains('js')")
        assert not tab.do("document.getElementById('theme').checkVisibility()")
    finally:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)


def test_headings_sort_by_number_both_ways_and_leave_controls_below(page):
    go(page, "fidelity")
    before = page.do(FID_COLUMN)
    assert before == ["SD V1-4", "Sana", "Mine & co_1 100%"]
    header = "#table-1 thead th:nth-child(2)"
    page.click(f"{header} .sort")
    # 54.225, 80.000, 125.186: as text, 125 would stand first
    assert page.do(FID_COLUMN) == ["Sana", "Mine & co_1 100%", "SD V1-4"]
    assert page.do(f"document.querySelector('{header}').ariaSort") == "ascending"
    page.press("Enter")  # the heading has the focus
    assert page.do(FID_COLUMN) == ["SD V1-4", "Mine & co_1 100%", "Sana"]
    assert page.do(f"document.querySelector('{header}').ariaSort") == "descending"
    page.press(" ")
    assert page.do(FID_COLUMN) == ["Sana", "Mine & co_1 100%", "SD V1-4"]
    last = "[...document.querySelectorAll('#table-1 tbody')].at(-1).textContent"
    assert "Noise" in page.do(last)


def test_dashes_stand_last_in_either_direction(page):
    """Mine has no privacy: in the overview's second column it has a dash."""
    names = "[...document.querySelectorAll('#at-a-glance tbody.model th')].map(h => h.textContent)"
    header = "#at-a-glance thead th:nth-child(3) .sort"
    page.click(header)
    assert page.do(names) == ["SD V1-4", "Sana", "Mine & co_1 100%"]
    page.click(header)
    assert page.do(names) == ["Sana", "SD V1-4", "Mine & co_1 100%"]


def test_a_metric_sorts_the_models_of_a_transposed_table_within_their_blocks(page):
    go(page, "privacy")
    names = "[...document.querySelectorAll('#table-3 thead th')].map(h => h.textContent.trim())"
    assert page.do(names) == ["Metric", "SD V1-4", "Sana", "Mine & co_1 100%", "Noise"]
    header = "#table-3 tbody tr:first-child .sort"
    page.click(header)
    page.click(header)
    assert page.do(names) == ["Metric", "Sana", "SD V1-4", "Mine & co_1 100%", "Noise"]


@pytest.mark.parametrize(
    ("key", "opener", "kind"),
    [("fidelity", ".current .enlarge", "svg"), ("images", ".current .zoom", "img")],
)
def test_what_is_enlarged_fills_the_window_and_escape_gives_the_focus_back(page, key, opener, kind):
    go(page, key)
    page.do(f"document.querySelector('{opener}').focus()")
    page.press("Enter")
    page.wait_for("document.getElementById('lightbox').open")
    seen = page.do(
        f"(() => {{ const r = document.querySelector('dialog .shown {kind}')"
        ".getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; })()"
    )
    left, top, right, bottom = seen
    assert left >= 0
    assert top >= 0
    assert right <= 1280
    assert bottom <= 800
    assert (bottom - top) > 500
    page.press("Escape")
    page.wait_for("!document.getElementById('lightbox').open")
    page.wait_for(f"document.activeElement === document.querySelector('{opener}')")


def test_a_click_on_a_figure_enlarges_it_too_and_closing_leads_to_its_button(page):
    go(page, "fidelity")
    page.click(".current figure.drawn > svg")
    page.wait_for("document.getElementById('lightbox').open")
    words = page.do("document.querySelector('dialog p').textContent")
    assert words == page.do(
        "document.querySelector('.current figure.drawn figcaption').textContent"
    )
    page.click("#lightbox button")
    page.wait_for("!document.getElementById('lightbox').open")
    page.wait_for("document.activeElement.className === 'enlarge'")


def test_colours_follow_the_system_until_chosen_and_the_choice_is_kept(page, address):
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.do(paper)
    page.prefer("dark")
    dark = page.do(paper)
    assert dark != light
    page.click("#theme")
    assert page.do(paper) == light
    page.open(address)
    assert page.do(paper) == light
    page.do("localStorage.clear()")
    page.open(address)
    assert page.do(paper) == dark


def test_without_storage_the_colours_can_still_be_chosen(page, address):
    denied = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException(); }})"
    script = page.send("Page.addScriptToEvaluateOnNewDocument", source=denied)["identifier"]
    page.open(address)
    try:
        before = page.do("getComputedStyle(document.body).backgroundColor")
        page.click("#theme")
        assert page.do("getComputedStyle(document.body).backgroundColor") != before
        assert page.do("document.getElementById('theme').ariaPressed") == "true"
        assert page.do(SHOWN) == ["/overview"]
    finally:
        page.send("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def test_the_keyboard_comes_first_to_the_skip_link_and_it_skips(page):
    page.press("Tab")
    assert page.do("document.activeElement.className") == "skip"
    assert page.do("document.activeElement.getBoundingClientRect().left") >= 0
    page.press("Enter")
    assert page.do("document.activeElement.tagName") == "MAIN"
    page.press("Tab")
    assert page.do("document.activeElement.closest('.page').id") == "/overview"
    width = page.do("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
    assert width >= 2


def test_headings_of_every_page_are_in_order_and_begin_with_one_h1(page):
    levels = page.do(
        "[...document.querySelectorAll('.page')].map(p =>"
        "[...p.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1])))"
    )
    for found in levels:
        assert found[0] == 1
        assert found.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(found))


def test_on_a_phone_no_page_scrolls_sideways_and_tables_scroll_in_their_boxes(page):
    page.resize(360, 740)
    for key in page.do(ALL):
        go(page, key.removeprefix("/"))
        page.do("document.querySelectorAll('.current details').forEach(d => { d.open = true; })")
        wide = page.do("document.documentElement.scrollWidth")
        assert wide <= 360, key
    go(page, "fidelity")
    box = "document.querySelector('#table-1 .scroll')"
    assert page.do(f"{box}.scrollWidth > {box}.clientWidth")
    page.do(f"{box}.scrollLeft = 200")
    name = "document.querySelector('#table-1 tbody th').getBoundingClientRect().left"
    assert page.do(f"{name} - {box}.getBoundingClientRect().left") == pytest.approx(0, abs=1)


@pytest.mark.parametrize("width", [1280, 1400])
def test_a_table_fits_a_desktop_or_says_above_it_that_it_scrolls(page, width):
    page.resize(width, 800)
    boxes = (
        "[...document.querySelectorAll('.current .scroll')].map(b => [b.ariaLabel,"
        "b.scrollWidth <= b.clientWidth + 1, b.previousElementSibling.checkVisibility()])"
    )
    fitting = set()
    for key in page.do(ALL):
        go(page, key.removeprefix("/"))
        page.do("document.querySelectorAll('.current details').forEach(d => { d.open = true; })")
        page.wait_for(f"{boxes}.every(([, fits, says]) => fits !== says)")
        fitting |= {label for label, fits, _ in page.do(boxes) if fits}
    assert {f"Table {n}" for n in (1, 2, 3, 4, 5, 6, 7, 8)} <= fitting


def test_the_words_above_a_wide_table_count_the_columns_out_of_sight(page):
    page.resize(760, 800)
    go(page, "fidelity")
    box = "document.querySelector('#table-2 .scroll')"
    says = f"{box}.previousElementSibling.textContent"
    page.wait_for(f"{says}.endsWith('more columns: scroll sideways →')")
    assert page.do(f"{box}.previousElementSibling.checkVisibility()")
    hidden = page.do(
        f"[...{box}.querySelectorAll('thead th')].filter(h => h.getBoundingClientRect().right >"
        f"{box}.getBoundingClientRect().right + 2).length"
    )
    assert page.do(says) == f"{hidden} more columns: scroll sideways →"
    page.do(f"{box}.scrollLeft = 5000")
    page.wait_for(f"{says}.startsWith('← Scroll back')")


def test_on_a_phone_the_navigation_opens_from_a_button_and_closes_on_the_way(page):
    page.resize(360, 740)
    links = "document.getElementById('pages').checkVisibility()"
    assert not page.do(links)
    page.click("#menu")
    assert page.do(links)
    page.click('#pages a[href="#/privacy"]')
    page.wait_for("document.querySelector('.page.current').id === '/privacy'")
    assert not page.do(links)
    page.click("#menu")
    page.press("Escape")
    assert not page.do(links)
    assert page.do("document.activeElement.id") == "menu"


def test_paper_gets_the_current_page_or_on_request_all_of_them(page):
    go(page, "privacy")
    page.prefer("light", media="print")
    assert page.do(SHOWN) == ["/privacy"]
    assert not page.do("document.getElementById('pages').checkVisibility()")
    page.do("document.documentElement.classList.add('print-all')")
    assert page.do(SHOWN) == page.do(ALL)


def test_a_model_card_has_its_samples_numbers_ranks_and_cost(page):
    go(page, "model/sana")
    text = " ".join(page.do("document.querySelector('.page.current').innerText").split())
    assert "54.225 52.225 to 56.225 rank 1 of 3" in text  # FID, the lowest of three
    assert "rank 2 of 2" in text  # re-identification: 0.551 beside 0.539
    assert "Fine-tuning 20.00 5.000" in text
    assert page.do("document.querySelectorAll('.current .samples .pair').length") == 6
    for number in ("125.186", "900.500"):  # those of other models
        assert number not in text


def test_a_table_of_its_own_sorts_and_needs_nothing_else(tab, address):
    tab.requested.clear()
    tab.complaints.clear()
    tab.open(f"{address.rpartition('/')[0]}/out/table01_fidelity.html")
    names = "[...document.querySelectorAll('tbody.model th')].map(h => h.firstChild.textContent)"
    tab.click("thead th:nth-child(2) .sort")
    assert tab.do(names) == ["Sana", "Mine & co_1 100%", "SD V1-4"]
    assert tab.complaints == []
    assert [u for u in tab.requested if not u.startswith(("file:", "data:", "about:"))] == []


def test_the_report_without_images_works_alike(tab, address):
    tab.complaints.clear()
    tab.open(address.replace("report.html", "public-report.html") + "#/model/sana")
    assert tab.do(SHOWN) == ["/model/sana"]
    assert tab.do("document.querySelectorAll('img').length") == 0
    links = tab.do("[...document.querySelectorAll('#pages a')].map(a => a.hash)")
    assert "#/fidelity" in links
    assert "#/images" not in links
    assert tab.complaints == []
