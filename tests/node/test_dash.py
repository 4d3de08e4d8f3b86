"""The dashboard: what it answers over a real socket, who may ask, and what a real browser makes of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from swarm_node.node.board import Board
from swarm_node.node.dash import picture as pictures
from swarm_node.node.dash.access import HEADERS, made_up_token
from swarm_node.node.dash.page import page as page_of
from swarm_node.node.dash.page import side_by_side
from swarm_node.node.dash.picture import Picture
from swarm_node.node.tasks import known_tasks, remember
from swarm_node.protocols import canonical
from swarm_node.protocols.errors import UsageError
from swarm_node.protocols.names import nickname
from swarm_node.protocols.records import Result, dump
from swarm_node.swarm.ledger import Ledger

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "swarm"))
from logs import ENVIRONMENT, EVIDENCE, KEYS, Log, check, result
from night import OWN, TASK, Night

pytestmark = pytest.mark.xdist_group("dash")  # one browser, one server at a time


@dataclass
class Site:
    """A dashboard that is being served."""

    url: str
    process: subprocess.Popen[str]
    token: str = ""

    @property
    def port(self) -> int:
        found = re.search(r":(\d+)/", self.url)
        assert found
        return int(found[1])

    def get(self, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        """One answer, over a connection of its own; its body is in `text`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            answer.text = answer.read().decode()  # type: ignore[attr-defined]
            return answer

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.status == 200, answer.text  # type: ignore[attr-defined]
        return json.loads(answer.text, parse_constant=_no_json)  # type: ignore[attr-defined]

    def when_ready(self) -> dict[str, Any]:
        """The feed, once the whole ledger was read."""
        end = time.monotonic() + 60
        while not (found := self.json("/api/news"))["ready"]:
            assert time.monotonic() < end
        return found


def _no_json(word: str) -> None:
    raise AssertionError(f"{word}: no browser reads this")


@contextlib.contextmanager
def serving(home: Path, *flags: str) -> Iterator[Site]:
    """`swarm-node dash` as a process; its end is checked."""
    command = [sys.executable, "-m", "swarm_node.node.cli", "dash", "--home", str(home), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        try:
            url = process.stdout.readline().strip()
            yield Site(url, process)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()


def refused(home: Path, *flags: str) -> tuple[int, str]:
    """The exit code and the message of a dashboard that does not start."""
    command = [sys.executable, "-m", "swarm_node.node.cli", "dash", "--home", str(home), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after a night in a small swarm."""
    folder = tmp_path_factory.mktemp("night")
    with Ledger.open(folder / "ledger.sqlite3") as ledger:
        Night(ledger, until_ms=int(time.time() * 1000), experiments=60).write()
    return folder


@pytest.fixture(scope="module")
def site(home: Path) -> Iterator[Site]:
    with serving(home, "--port", "0") as site:
        site.when_ready()
        yield site


def folded(ledger: Ledger) -> Picture:
    """Everything that is in a ledger."""
    picture = Picture(ledger)
    while picture.advance():
        pass
    picture.settle()
    return picture


def everything(picture: Picture) -> str:
    """All that the pages show, but for times that depend on the clock."""
    (track,) = picture.tracks()
    views = (picture.progress, picture.board, picture.lanes)
    return json.dumps([picture.tracks(), picture.nodes(), *(view(track["key"]) for view in views)])


# ---- what is shown


def test_the_board_is_that_of_the_command(home: Path, site: Site) -> None:
    """The same programs in the same order, with the same states, changes and adopters."""
    (track,) = site.json("/api/tracks")
    shown = site.json(f"/api/tracks/{track['key']}/board")
    with Ledger.open(home / "ledger.sqlite3", read_only=True) as ledger:
        board = Board(ledger, known_tasks(ledger))
        rows, heading = board.rows(board.tracks[0]), board.tracks[0].heading()
    assert [row["id"] for row in shown["rows"]] == [row.record.id.hex() for row in rows]
    assert [row["state"] for row in shown["rows"]] == [row.state for row in rows]
    assert [row["adopted"] for row in shown["rows"]] == [len(row.adopters) for row in rows]
    assert f"{track['results']} results of {track['nodes']} nodes" in heading
    assert f"baseline {track['baseline']:.4f} ± {track['noise']:.4f}" in heading
    assert shown["hidden"] == 1 and any(row["adopted"] for row in shown["rows"])
    assert track["name"] == "gpt-cpu/short on cpu"


def test_the_stairs_go_down_over_what_stands(site: Site) -> None:
    """Every step is better than the one before; what was refuted, or made up, is none."""
    (track,) = site.json("/api/tracks")
    shown = site.json(f"/api/tracks/{track['key']}/progress")
    steps = [one for one in shown["kept"] if one[6]]
    scores = [one[2] for one in steps]
    assert len(scores) > 3 and scores == sorted(scores, reverse=True) and scores[-1] == track["best"]
    assert all(low < score < high for _, _, score, low, high, *_ in steps)
    refuted = [one for one in shown["kept"] if one[5] == "refuted"]
    assert len(refuted) == 1 and not refuted[0][6]
    assert "reads the answers" not in {one[9] for one in shown["kept"]}
    assert {one[3] for one in shown["reruns"]} == {"confirmed", "refuted"}


def test_a_record_is_told_in_full(home: Path, site: Site) -> None:
    """Evidence in words, the edit side by side, runs, curves of own ones, and where it stands among others."""
    (track,) = site.json("/api/tracks")
    rows = site.json(f"/api/tracks/{track['key']}/board")["rows"]
    with Ledger.open(home / "ledger.sqlite3", read_only=True) as ledger:
        own = bytes.fromhex(ledger.journal("node")["author"])
    adopted = next(row for row in rows if row["adopted"])
    told = site.json(f"/api/records/{adopted['id']}")
    assert told["title"] == adopted["title"] and len(told["adopted_by"]) == adopted["adopted"]
    assert "4 pairs" in told["evidence"][0] and len(told["runs"]) == 8
    kinds = {row[0] for row in told["diff"]}
    assert " " in kinds and kinds & {"~", "+"}
    mine = [row for row in rows if row["name"] == nickname(own)]
    told = site.json(f"/api/records/{mine[0]['id'][:12]}")
    assert {curve["name"] for curve in told["curves"]} >= {"screen", "candidate-0", "parent-0"}
    judged = next(one for one in site.json("/api/news")["records"] if one["kind"] == "verification")
    told = site.json(f"/api/records/{judged['id']}")
    assert told["kind"] == "verification" and told["about"]["id"] == judged["about"]["id"]
    answer = site.get("/api/records/abcd1234")
    assert answer.status == 404 and "no record starts with" in answer.text  # type: ignore[attr-defined]


def test_the_feed_starts_with_the_newest_and_then_only_news_travel(site: Site) -> None:
    """And older ones are there for those who ask."""
    start = site.json("/api/news")
    rows = [one["row"] for one in start["records"]]
    assert rows == sorted(rows) and rows[-1] == start["row"] and len(rows) <= 200
    assert site.json(f"/api/news?after={rows[-1]}")["records"] == []
    assert [one["row"] for one in site.json(f"/api/news?after={rows[-4]}")["records"]] == rows[-3:]
    assert [one["row"] for one in site.json(f"/api/news?before={rows[5]}")["records"]] == rows[:5]
    assert site.get("/api/news?after=x").status == 404


def test_nodes_are_counted_and_the_quarantined_are_named(site: Site) -> None:
    """The one of this home comes first."""
    shown = site.json("/api/nodes")
    assert shown["nodes"][0]["own"] and shown["total"] == 5 and shown["node"]["running"] is False
    (liar,) = [one for one in shown["nodes"] if one["quarantined"]]
    assert (liar["results"], liar["kept"], liar["refuted"]) == (1, 1, 1)
    assert sum(one["confirmed"] for one in shown["nodes"]) > 3


def test_what_arrives_page_by_page_looks_as_if_it_had_always_been_there(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it was looked at in between."""
    monkeypatch.setattr(pictures, "_PAGE", 7)
    monkeypatch.setattr(pictures, "_SHARE", 0)
    with Ledger.open(home / "ledger.sqlite3", read_only=True) as ledger:
        slow = Picture(ledger)
        slow.ready = True
        while slow.advance():
            slow.settle()
            everything(slow)
        monkeypatch.setattr(pictures, "_PAGE", 500)
        assert everything(slow) == everything(folded(ledger))


def test_much_is_drawn_as_a_sample(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that was kept, and some of the rest, with how many there are."""
    with Ledger.open(home / "ledger.sqlite3", read_only=True) as ledger:
        picture = folded(ledger)
        key = picture.tracks()[0]["key"]
        whole = picture.progress(key)
        monkeypatch.setattr(pictures, "_OTHERS", 10)
        few = folded(ledger).progress(key)
    assert few["kept"] == whole["kept"] and few["others_total"] == len(whole["others"]) > 20
    assert 5 <= len(few["others"]) <= 10


def test_a_rerun_that_is_heard_before_its_result_counts(tmp_path: Path) -> None:
    """Logs come one by one, in any order."""
    with Ledger.open(tmp_path / "ledger") as ledger:
        remember(ledger, TASK.spec)
        author, judge = Log(KEYS[1]), Log(KEYS[2])
        win = author.say(result("kept", 1, task=TASK.spec.id))
        ledger.add(judge.say(check(win, "confirmed", task=TASK.spec.id, gain=0.1)), received_ms=1)
        ledger.add(win, received_ms=2)
        picture = folded(ledger)
        shown = picture.progress(picture.tracks()[0]["key"])
    assert len(shown["reruns"]) == 1 and shown["kept"][0][5] == "confirmed"


def test_a_group_names_the_edits_in_it(tmp_path: Path) -> None:
    """Though none of them is a win: they promised, and were confirmed together."""
    with Ledger.open(tmp_path / "ledger") as ledger:
        remember(ledger, TASK.spec)
        author = Log(KEYS[1])
        edits = [author.say(result("inconclusive", n, task=TASK.spec.id, title=f"edit {n}")) for n in (1, 2)]
        names = tuple(edit.id for edit in edits)
        group = author.say(result("kept", 3, task=TASK.spec.id, proposer="group", inspired_by=names))
        for record in (*edits, group):
            ledger.add(record, received_ms=1)
        shown = page_of(group, folded(ledger))["inspired_by"]
    assert [one["title"] for one in shown] == ["edit 1", "edit 2"]


def test_tracks_are_never_mixed(tmp_path: Path) -> None:
    """Nor is what was measured on other hardware, or at another width, drawn among the scores."""
    gpu = ENVIRONMENT.model_copy(update={"hardware": "cuda-sm90"})
    with Ledger.open(tmp_path / "ledger") as ledger:
        remember(ledger, TASK.spec)
        author, judge = Log(KEYS[1]), Log(KEYS[2])
        win = author.say(result("kept", 1, task=TASK.spec.id, score=3.0))
        there = author.say(result("kept", 2, task=TASK.spec.id, score=1.0, environment=gpu))
        other = author.say(result("kept", 3, task=b"x" * 32, score=0.1))
        for record in (win, there, other):
            ledger.add(record, received_ms=1)
        for fields in ({"environment": gpu}, {"setting": "wider"}, {}):
            again = check(win, "confirmed", **{"task": TASK.spec.id, "gain": 0.1, **fields})
            ledger.add(judge.say(again), received_ms=1)
        picture = folded(ledger)
        tracks = {track["name"]: track for track in picture.tracks()}
        assert {track["best"] for track in tracks.values()} == {3.0, 1.0, 0.1}
        shown = picture.progress(tracks["gpt-cpu/short on cpu"]["key"])
        assert len(shown["kept"]) == len(shown["reruns"]) == 1
        with pytest.raises(UsageError, match="no such track"):
            picture.board("0" * 16)


def test_numbers_that_overflow_break_nothing(tmp_path: Path) -> None:
    """Each is finite in its signed record; what is made of them need not be, and JSON has no word for that."""
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        remember(ledger, TASK.spec)
        open_ended = EVIDENCE.model_copy(update={"low": None, "high": None})
        win = Log(KEYS[1]).say(result("kept", 1, task=TASK.spec.id, gain=-1e308, gain_error=1e308, evidence=open_ended))
        ledger.add(win, received_ms=1)
        ledger.add(Log(KEYS[4]).say(check(win, "refuted", task=TASK.spec.id, gain=1.7e308)), received_ms=1)
        invented = ENVIRONMENT.model_copy(update={"hardware": "made-up"})
        for key in KEYS[2:4]:
            plain = result("baseline", 0, None, task=TASK.spec.id, score=1.7e308, noise=1.7e308, environment=invented)
            ledger.add(Log(key).say(plain), received_ms=1)
    with serving(tmp_path, "--port", "0") as site:
        site.when_ready()
        tracks = {track["hardware"]: track for track in site.json("/api/tracks")}
        assert tracks["made-up"]["baseline"] is tracks["made-up"]["noise"] is None
        shown = site.json(f"/api/tracks/{tracks['cpu']['key']}/progress")
        assert shown["kept"][0][2:5] == [3.0, None, None] and shown["reruns"] == []
        for track in tracks.values():
            for view in ("progress", "board", "map"):
                assert site.json(f"/api/tracks/{track['key']}/{view}")


def test_an_edit_is_shown_side_by_side() -> None:
    """Changed lines face each other; what is no diff is text."""
    diff = "--- a/train.py\n+++ b/train.py\n@@ -3,4 +3,4 @@\n a\n-b\n-c\n+B\n d\n+e\n"
    assert side_by_side(diff) == [
        ["@", None, "line 3", None, ""],
        [" ", 3, "a", 3, "a"],
        ["~", 4, "b", 4, "B"],
        ["-", 5, "c", None, ""],
        [" ", 6, "d", 5, "d"],
        ["+", None, "", 6, "e"],
    ]
    assert side_by_side("(the diff stays\x1b[2J)") == [["@", None, "(the diff stays?[2J)", None, ""]]
    assert side_by_side("") == []


# ---- who may ask


def test_every_answer_has_the_headers(site: Site) -> None:
    """Also refusals and what is not there; nothing on the page is inline."""
    for path, status in (("/", 200), ("/main.js", 200), ("/style.css", 200), ("/api/tracks", 200), ("/x", 404)):
        answer = site.get(path)
        assert answer.status == status
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "'unsafe" not in HEADERS["content-security-policy"]
    text = site.get("/").text  # type: ignore[attr-defined]
    assert not re.search(r"<script(?![^>]* src=)|<style|style=|\son\w+=|https?://", text)


def test_nothing_but_reading_is_possible(home: Path, site: Site) -> None:
    """No other method, no file but its own, and not a byte of the ledger is written."""
    with Ledger.open(home / "ledger.sqlite3", read_only=True) as ledger:
        version = ledger.data_version()
        (track,) = site.json("/api/tracks")
        for path in ("/api/news", "/api/nodes", f"/api/records/{track['best_id']}"):
            site.json(path)
        assert ledger.data_version() == version
    assert site.get("/api/tracks", method="POST").status == 405
    for path in ("/../picture.py", "/%2e%2e/picture.py", "/static/main.js", "/..%2fpicture.py", "//etc/passwd"):
        assert site.get(path).status == 404
    assert not (home / "dash.token").exists()


def test_on_loopback_only_names_of_this_machine_are_answered(site: Site) -> None:
    """Whoever points a name of theirs here gets nothing; a forwarded port is fine."""
    for name in ("127.0.0.1", "localhost:9999", "LOCALHOST", "[::1]:1"):
        assert site.get("/api/tracks", Host=name).status == 200
    for name in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""):
        answer = site.get("/api/tracks", Host=name)
        assert answer.status == 403 and answer.headers["content-security-policy"]


def test_everywhere_else_a_token_is_asked_for(home: Path, tmp_path: Path) -> None:
    """It is made up once, readable by its user alone, and becomes a cookie that no script and no other site can use."""
    shutil.copy(home / "ledger.sqlite3", tmp_path)
    with serving(tmp_path, "--host", "0.0.0.0", "--port", "0") as site:
        token = site.url.partition("?token=")[2]
        path = tmp_path / "dash.token"
        assert path.read_text().strip() == token and len(token) >= 32 and path.stat().st_mode & 0o777 == 0o600
        assert site.get("/api/tracks").status == 403 and site.get("/").status == 200
        for wrong in ("", "x", token[:-1], token + "x", "é"):
            assert site.get(f"/?token={wrong.encode().hex()}").status == 403
            assert site.get("/api/tracks", Cookie=f"swarm-node-{site.port}={wrong.encode().hex()}").status == 403
        moved = site.get(f"/?token={token}")
        assert moved.status == 303 and moved.headers["location"] == "/"
        cookie = moved.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie
        assert site.get("/api/tracks", Cookie=cookie.partition(";")[0], Host="any.example").status == 200
    assert made_up_token(path) == token
    path.write_text("short")
    assert made_up_token(path) != "short"


def test_a_token_of_ones_own(home: Path) -> None:
    """It is asked for on loopback too."""
    with serving(home, "--token", "correct-horse-battery", "--port", "0") as site:
        assert site.url.endswith("/?token=correct-horse-battery")
        assert site.get("/api/tracks").status == 403
        assert site.get("/api/tracks", Cookie=f"swarm-node-{site.port}=correct-horse-battery").status == 200


@pytest.mark.parametrize("private", [False, True])
def test_the_key_of_a_private_swarm_is_told_to_nobody_without_a_token(tmp_path: Path, private: bool) -> None:
    """On loopback every user of the machine may ask; the ledger, where the invite is, is for its owner alone."""
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        ledger.set_status(json.dumps({"name": "n", "private": private, "invite": "swarm1abc"}))
    with serving(tmp_path, "--port", "0") as site:
        for path in ("/api/news", "/api/nodes"):
            assert site.json(path)["node"]["invite"] == ("" if private else "swarm1abc")
    with serving(tmp_path, "--token", "correct-horse-battery", "--port", "0") as site:
        told = site.get("/api/news", Cookie=f"swarm-node-{site.port}=correct-horse-battery")
        assert json.loads(told.text)["node"]["invite"] == "swarm1abc"  # type: ignore[attr-defined]


def test_what_makes_no_sense_is_refused_with_its_fix(home: Path, tmp_path: Path) -> None:
    """One clear error each, with its exit code."""
    code, text = refused(tmp_path)
    assert code == 3 and "fix: start one: swarm-node join" in text
    code, text = refused(home, "--host", "example.org")
    assert code == 2 and "it is not an IP address" in text
    code, text = refused(home, "--token", "short")
    assert code == 2 and "16 to 128" in text
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = refused(home, "--port", str(port))
    assert code == 5 and f"port {port} is in use" in text and "--port 0" in text


def test_where_the_node_listens_is_not_where_the_dashboard_does(home: Path, tmp_path: Path) -> None:
    """`host` and `port` of a config file are the node's: they would show the dashboard to everybody."""
    shutil.copy(home / "ledger.sqlite3", tmp_path)
    (tmp_path / "config.toml").write_text('host = "0.0.0.0"\nport = 4001\n')
    with serving(tmp_path) as site:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", site.url) and site.port != 4001


# ---- in a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One real browser for all."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (Debian, Ubuntu: apt install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def window(browser: Any) -> Iterator[Any]:
    """An empty page; whatever its console complains of, or a dialog, fails the test."""
    from playwright.sync_api import expect

    expect.set_options(timeout=30_000)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    yield page
    assert said == []
    context.close()


def test_the_page_shows_board_chart_feed_map_and_peers(site: Site, window: Any) -> None:
    """Each with what the ledger holds; the window of a phone is no wider than it is."""
    from playwright.sync_api import expect

    (track,) = site.json("/api/tracks")
    window.goto(site.url)
    expect(window.locator(".huge")).to_have_text(f"{track['best']:.4f}")
    shown = site.json(f"/api/tracks/{track['key']}/progress")
    expect(window.locator("main svg.chart[role=img] .kept")).to_have_count(len(shown["kept"]))
    expect(window.locator("table.board tbody tr").first).to_contain_text(f"{track['best']:.4f}")
    expect(window.locator("#feed li").first).to_be_visible()
    window.get_by_role("button", name="by time").click()
    expect(window.get_by_role("button", name="by time")).to_have_attribute("aria-pressed", "true")
    window.get_by_role("link", name="map").click()
    lanes = site.json(f"/api/tracks/{track['key']}/map")
    expect(window.locator("svg.map .kept")).to_have_count(len(lanes["dots"]))
    expect(window.locator("svg.map .link")).to_have_count(len(lanes["links"]))
    expect(window.locator("svg.map .name")).to_have_text([re.compile(re.escape(name)) for name in lanes["lanes"]])
    window.get_by_role("link", name="peers").click()
    expect(window.locator("tbody tr", has_text="quarantined")).to_have_count(1)
    window.set_viewport_size({"width": 390, "height": 844})
    for view in ("", "map", "feed", "peers", f"record/{track['best_id']}"):
        window.goto(f"{site.url}#/{view}")
        expect(window.locator("main section").first).to_be_visible()
        assert window.evaluate("document.documentElement.scrollWidth") == 390


def test_a_record_is_reached_by_mouse_and_by_keys(site: Site, window: Any) -> None:
    """From the board, and along the steps of the chart."""
    from playwright.sync_api import expect

    window.goto(site.url)
    window.locator("table.board tbody a").first.click()
    for head in ("Evidence", "The edit", "Runs", "In the record"):
        expect(window.get_by_role("heading", name=head, exact=True)).to_be_visible()
    expect(window.locator("table.diff tr.changed").first).to_be_visible()
    window.go_back()
    window.locator("main svg.chart[role=img]").focus()
    window.keyboard.press("ArrowLeft")
    expect(window.locator("#tip")).to_be_visible()
    window.keyboard.press("Enter")
    expect(window.get_by_role("heading", name="Evidence")).to_be_visible()


def test_a_new_record_appears_without_a_reload(home: Path, tmp_path: Path, window: Any) -> None:
    """In the feed, on the board and in the big number; a verdict changes the line that it is about."""
    from playwright.sync_api import expect

    shutil.copy(home / "ledger.sqlite3", tmp_path)
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger, serving(tmp_path) as site:
        window.goto(site.url)
        expect(window.locator("table.board tbody tr").first).to_be_visible()
        window.evaluate("window.same = true")
        log = Log(KEYS[9])
        win = log.say(result("kept", 77, task=TASK.spec.id, title="found while you looked", score=1.25))
        ledger.add(win, received_ms=int(time.time() * 1000))
        expect(window.locator("#feed li").first).to_contain_text("found while you looked")
        expect(window.locator("#feed li").first).to_contain_text("claimed")
        expect(window.locator(".huge")).to_have_text("1.2500")
        expect(window.locator("table.board tbody tr").first).to_contain_text("found while you looked")
        ledger.append(OWN, check(win, "confirmed", task=TASK.spec.id), now_ms=int(time.time() * 1000))
        expect(window.locator(f'#feed [data-id="{win.id.hex()}"]')).to_contain_text("confirmed by 1")
        expect(window.locator("table.board tbody tr").first).to_contain_text("confirmed by 1")
        assert window.evaluate("window.same")


def test_an_empty_ledger_says_so_and_wakes_up(tmp_path: Path, window: Any) -> None:
    """Who just joined sees the first result come."""
    from playwright.sync_api import expect

    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        remember(ledger, TASK.spec)
        with serving(tmp_path) as site:
            window.goto(site.url)
            expect(window.locator("main")).to_contain_text("No results yet")
            for view in ("map", "feed", "peers", ""):
                window.goto(f"{site.url}#/{view}")
                expect(window.locator("main")).not_to_be_empty()
            other = dump(result("discarded", 1, task=TASK.spec.id, score=3.2, noise=0.01))
            first = Result.model_validate(other | {"outcome": "baseline", "parent": None})
            ledger.append(OWN, first, now_ms=int(time.time() * 1000))
            expect(window.locator(".huge")).to_have_text("3.2000")
            expect(window.locator("main")).to_contain_text("nothing was kept yet")


EVIL = [
    "<script>window.owned=1</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(2)>",
    "</title></bdi></td><iframe srcdoc='<script>parent.owned=1</script>'>",
    "javascript:alert(3)",
    "${alert(4)} {{7*7}} <b>&lt;&amp;",
    "שלום <i>עולם</i>",
    "<" * 120,
]


def hostile(ledger: Ledger) -> list[Any]:
    """Records whose every word is an attack."""
    remember(ledger, TASK.spec)
    records: list[Any] = []
    for number, text in enumerate(EVIL):
        log, long = Log(KEYS[number + 1]), (text * 40)[:400]
        hardware = "<b onclick=alert(5)>" if number == 1 else "cpu"
        where = ENVIRONMENT.model_copy(update={"hardware": hardware, "device": text[:80]})
        diff = f"--- a/train.py\n+++ b/train.py\n@@ -1,2 +1,2 @@\n {text}\n-{text}\n+{long}\n"
        fields = {"title": text[:120], "reason": long, "cause": long, "diff": diff, "proposer": text[:64]}
        body = result("kept", number + 1, task=TASK.spec.id, environment=where, score=2.0 + number, **fields)
        records.append(log.say(body))
        records.append(Log(KEYS[20 + number]).say(check(records[-1], "refuted", task=TASK.spec.id, cause=long)))
    for record in records:
        ledger.add(record, received_ms=1)
    return records


def test_a_hostile_ledger_is_text_and_nothing_else(tmp_path: Path, window: Any) -> None:
    """On every view: no script runs, no element is made of words, and the words are there to be read."""
    from playwright.sync_api import expect

    path = tmp_path / "ledger.sqlite3"
    with Ledger.open(path) as ledger:
        records = hostile(ledger)
        ledger.add(Log(KEYS[19]).say(result("discarded", 99, task=TASK.spec.id)), received_ms=1)
        ledger.set_status(json.dumps({"name": EVIL[0], "role": EVIL[1], "task": EVIL[2], "peers": [EVIL[3]]}))
    forged = _forge(path, "turned \u202e\x1b[2J\u0000 around \u200b<u>x</u>")
    with serving(tmp_path) as site:
        tracks = site.json("/api/tracks") if site.when_ready() else []
        assert len(tracks) == 2
        for view in ("", "map", "feed", "peers", *(f"record/{record.id.hex()}" for record in records)):
            window.goto(f"{site.url}#/{view}")
            expect(window.locator("main .loading")).to_have_count(0)
            expect(window.locator("main").locator("h1, h2").first).to_be_visible()
            made = window.locator("script:not([src='main.js']), iframe, img, b, i, u, [onload], [onerror], [onclick]")
            assert made.count() == 0
            assert window.evaluate("window.owned") is None
            links = window.locator("a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
            assert all(re.fullmatch(r"#(/[\w/]*|content)", link) for link in links), links
        window.goto(f"{site.url}#/feed")
        for text in EVIL:
            expect(window.locator("#feed bdi").get_by_text(text[:120], exact=True).first).to_be_visible()
        expect(window.locator("#feed bdi", has_text="turned ??[2J? around ?<u>x</u>")).to_be_visible()
        assert site.get(f"/api/records/{forged}").status == 500
        told = site.get("/api/news").text  # type: ignore[attr-defined]
        assert not set(told) & set("\u202e\x1b\u0000\u200b")


def _forge(path: Path, title: str) -> str:
    """Change the title of the last record behind the ledger's back, into what no record may say; its id."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        row, identity, wire = db.execute("SELECT row, id, wire FROM records ORDER BY row DESC LIMIT 1").fetchone()
        value = canonical.recall(wire)
        value["body"]["title"] = title
        db.execute("UPDATE records SET wire = ? WHERE row = ?", (canonical.encode(value), row))
        db.commit()
    return identity.hex()
