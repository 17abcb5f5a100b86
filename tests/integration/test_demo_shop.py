"""The rehearsal's parts together: the shop as a process, the crowd over real connections, the whole demo."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from support.fake_gateway import PASS, TICKET, gateway_to, serving
from waitroom.drill.load.crowd import Crowd, Plan
from waitroom.drill.load.visitor import Outcome, VisitorProfile
from waitroom.drill.processes import ChildProcesses, ProcessFailedError
from waitroom.drill.shop.app import Shop
from waitroom.drill.shop.app import main as shop_main
from waitroom.drill.shop.database import DatabaseThread, Pool

FAKE_GATEWAY = Path(__file__).parents[1] / "support" / "fake_gateway.py"
NOBODY_ODD = {"impatient_share": 0.0, "returning_share": 0.0}
DEMO = """
import asyncio, sys
from rich.console import Console
from waitroom.drill import demo

if sys.argv[1]:
    demo.gateway_command = lambda config: [sys.executable, sys.argv[1], "--config", str(config)]
run = demo.run_demo(
    keep=sys.argv[2] == "keep", seconds=float(sys.argv[3]), visitors=int(sys.argv[4]), console=Console(width=120)
)
sys.exit(asyncio.run(run))
"""


@asynccontextmanager
async def shop_serving(path, *, stock=100, size=8, backlog=100, wait_seconds=5.0, query_seconds=0.0):
    """The shop in this process."""
    database = DatabaseThread()
    await database.open(path, stock)
    pool = Pool(size, backlog=backlog, wait_seconds=wait_seconds, query_seconds=query_seconds)
    shop = Shop(database, pool)
    async with serving(shop.application()) as origin:
        yield shop, origin
    await database.close()


@pytest.fixture
async def shop(tmp_path):
    async with shop_serving(tmp_path / "shop.sqlite") as (_, origin):
        yield origin


@pytest.fixture
async def browser():
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def stats(session, origin):
    async with session.get(f"{origin}/stats") as answer:
        return await answer.json()


async def order(session, origin, **form):
    await (await session.post(f"{origin}/basket")).read()
    values = {"buyer": "Ada", "email": "ada@example.com"} | form
    return await session.post(f"{origin}/checkout", data=values)


def quick(crowd):
    """Make the crowd's people think fast, so that a test is short."""
    for client in crowd.clients:
        who = client.visitor.profile
        client.visitor.profile = VisitorProfile(
            patience_seconds=who.patience_seconds,
            sends_leave=True,
            closes_tab_after=who.closes_tab_after,
            away_seconds=0.05,
            think_seconds=(0.0, 0.01),
            retry_seconds=(0.0, 0.01),
        )
    return crowd


def a_crowd(origin, visitors, **plan):
    values = {"burst_seconds": 0.1, "trickle_seconds": 0.2} | NOBODY_ODD | plan
    return quick(Crowd(origin, "shop", Plan(visitors, **values), random.Random(1)))


async def test_a_purchase_from_the_product_to_the_confirmation(shop, browser):
    async with browser.get(shop) as product:
        assert product.headers["Waitroom-Command"] == "remaining=100"
        assert "100 left in this batch" in await product.text()
    async with browser.post(f"{shop}/basket") as basket:
        assert basket.url.path == "/basket"
        assert "To the checkout" in await basket.text()
    async with browser.get(f"{shop}/checkout") as checkout:
        assert 'action="/checkout"' in await checkout.text()
    async with browser.post(f"{shop}/checkout", data={"buyer": "<Ada>", "email": "ada@example.com"}) as confirmed:
        assert confirmed.url.path == "/orders/1"
        assert confirmed.headers["Waitroom-Command"] == "release, remaining=99"
        assert "Thank you, &lt;Ada&gt;." in await confirmed.text()
    data = await stats(browser, shop)
    assert (data["orders"], data["stock"], data["failures"], data["in_flight"]) == (1, 99, 0, 0)


async def test_a_confirmation_is_visible_only_to_its_buyer(shop, browser):
    confirmed = await order(browser, shop)
    assert confirmed.url.path == "/orders/1"
    async with aiohttp.ClientSession() as stranger, stranger.get(f"{shop}/orders/1") as answer:
        assert answer.status == 404
        assert "Waitroom-Command" not in answer.headers


@pytest.mark.parametrize(
    ("form", "complaint"), [({"buyer": " "}, "enter a name"), ({"email": "ada"}, "enter an address")]
)
async def test_an_invalid_form_is_returned_with_its_values(shop, browser, form, complaint):
    answer = await order(browser, shop, **form)
    text = await answer.text()
    assert answer.status == 422
    assert complaint in text
    assert ('value="Ada"' in text) == ("buyer" not in form)
    assert (await stats(browser, shop))["orders"] == 0


async def test_without_a_basket_there_is_no_checkout(shop, browser):
    async with browser.get(f"{shop}/checkout") as answer:
        assert answer.url.path == "/basket"
    async with browser.post(f"{shop}/checkout", data={"buyer": "Ada", "email": "ada@example.com"}) as answer:
        assert answer.url.path == "/basket"
        assert 'data-page="empty_basket"' in await answer.text()


async def test_a_basket_can_be_emptied_again(shop, browser):
    await (await browser.post(f"{shop}/basket")).read()
    async with browser.post(f"{shop}/basket/empty") as answer:
        assert 'data-page="empty_basket"' in await answer.text()


async def test_every_page_says_when_all_is_sold(tmp_path, browser):
    async with shop_serving(tmp_path / "shop.sqlite", stock=1) as (_, origin):
        await order(browser, origin)
        late = await order(browser, origin)
        assert late.headers["Waitroom-Command"] == "remaining=0"
        assert 'data-page="sold_out"' in await late.text()
        async with browser.get(origin) as product:
            assert product.headers["Waitroom-Command"] == "remaining=0"
            assert 'action="/basket"' not in await product.text()
        assert (await stats(browser, origin))["orders"] == 1


async def test_the_shop_fails_only_beyond_its_capacity(tmp_path, browser):
    async with shop_serving(tmp_path / "s", size=1, backlog=2, query_seconds=0.05) as (shop, origin):

        async def look():
            async with browser.get(origin) as answer:
                await answer.read()
                return answer.status

        assert [await look() for _ in range(3)] == [200, 200, 200]
        assert shop.load.failures == 0
        statuses = await asyncio.gather(*(look() for _ in range(12)))
        assert set(statuses) == {200, 503}
        data = await stats(browser, origin)
        assert data["failures"] == statuses.count(503)
        assert data["peak_in_flight"] > 1
        assert await look() == 200


async def test_a_crowd_never_buys_more_than_the_stock(tmp_path, browser):
    async with shop_serving(tmp_path / "shop.sqlite", stock=30) as (_, origin):
        crowd = a_crowd(origin, 50)
        await crowd.run(20)
        assert (crowd.count(Outcome.BOUGHT), crowd.count(Outcome.SOLD_OUT)) == (30, 20)
        data = await stats(browser, origin)
        assert (data["orders"], data["stock"], crowd.tally.failures) == (30, 0, 0)


async def test_an_overloaded_shop_loses_visitors(tmp_path):
    async with shop_serving(tmp_path / "s", size=1, backlog=1, query_seconds=0.05) as (shop, origin):
        crowd = a_crowd(origin, 30)
        await crowd.run(30)
        assert crowd.count(Outcome.FAILED) > 0
        assert crowd.tally.failures == crowd.tally.kinds["status"] == shop.load.failures
        assert crowd.tally.failures == sum(client.visitor.errors for client in crowd.clients)
        assert crowd.tally.statuses[503] == sum(client.statuses[503] for client in crowd.clients)


async def test_a_crowd_waits_and_buys(shop):
    async with gateway_to(shop) as (gateway, origin):
        crowd = a_crowd(origin, 20, returning_share=0.5, closes_tab_seconds=(0.0, 0.3))
        running = asyncio.create_task(crowd.run(30))
        async with asyncio.timeout(30):
            while not running.done():
                gateway.admit(2)
                await asyncio.sleep(0.05)
        await running
        assert crowd.count(Outcome.BOUGHT) == 20
        assert crowd.joined() == crowd.admitted() == len(crowd.waits()) == 20
        assert gateway.places == 20
        assert gateway.polls > 0
        assert crowd.tally.failures == 0
        assert not gateway.inside


async def test_a_visitor_with_an_expired_pass_waits_again_and_drops_the_cookie(shop):
    async with gateway_to(shop) as (gateway, origin):
        crowd = a_crowd(origin, 1)
        (client,) = crowd.clients
        client.cookies[PASS] = "long gone"
        running = asyncio.create_task(crowd.run(20))
        async with asyncio.timeout(20):
            while not running.done():
                gateway.admit(1)
                await asyncio.sleep(0.05)
        await running
        assert (client.visitor.outcome, client.visitor.errors) == (Outcome.BOUGHT, 0)
        assert client.visitor.wait_seconds is not None
        assert client.cookies[PASS] == "t1"
        assert TICKET not in client.cookies


async def test_impatient_visitors_give_up_their_places(shop):
    async with gateway_to(shop) as (gateway, origin):
        crowd = a_crowd(origin, 5, impatient_share=1.0, patience_seconds=(0.1, 0.3))
        await crowd.run(20)
        assert crowd.count(Outcome.GAVE_UP) == 5
        assert sorted(gateway.left) == [f"t{number}" for number in range(1, 6)]
        assert not gateway.waiting


@pytest.mark.parametrize(("state", "outcome"), [("sold_out", Outcome.SOLD_OUT), ("closed", Outcome.CLOSED)])
async def test_a_crowd_leaves_a_closed_room(shop, state, outcome):
    async with gateway_to(shop) as (gateway, origin):
        gateway.state = state
        crowd = a_crowd(origin, 5)
        await crowd.run(20)
        assert crowd.count(outcome) == 5


async def test_visitors_in_the_queue_are_still_waiting_when_the_time_is_over(shop):
    async with gateway_to(shop) as (_, origin):
        crowd = a_crowd(origin, 5)
        await crowd.run(10)
        assert crowd.count(Outcome.STILL_WAITING) == 5
        assert crowd.waiting() == 0


async def test_a_cancelled_crowd_leaves_no_visit_behind(shop):
    before = asyncio.all_tasks()
    crowd = a_crowd(shop, 10, burst_seconds=60.0)
    running = asyncio.create_task(crowd.run(60))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert crowd.count(Outcome.NOT_ARRIVED) == 10
    assert asyncio.all_tasks() == before


async def test_a_missing_gateway_is_an_error_and_not_the_end_of_the_drill(unused_tcp_port):
    crowd = a_crowd(f"http://127.0.0.1:{unused_tcp_port}", 3)
    await crowd.run(20)
    assert crowd.count(Outcome.FAILED) == 3
    assert crowd.tally.failures == crowd.tally.kinds["connection"] == crowd.tally.requests == 15


async def test_a_shop_process_prints_one_line_and_ends_on_sigterm(tmp_path, browser):
    command = [sys.executable, "-m", "waitroom.drill.shop.app", "--port", "0", "--stock", "3", "--capacity", "2"]
    shop = await asyncio.create_subprocess_exec(
        *command, "--data", str(tmp_path / "shop.sqlite"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            ready = (await shop.stdout.readline()).decode()
            assert ready.startswith("shop ready on http://127.0.0.1:")
            data = await stats(browser, ready.split()[-1])
            assert (data["stock"], data["capacity"]) == (3, 2)
            shop.terminate()
            assert await shop.communicate() == (b"", b"")
            assert shop.returncode == 0
    finally:
        if shop.returncode is None:
            shop.kill()
            await shop.wait()


def test_a_shop_that_cannot_start_prints_the_cause(tmp_path):
    command = [sys.executable, "-m", "waitroom.drill.shop.app", "--port", "0", "--data", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    assert "the shop can't start: unable to open database file" in ended.stderr


async def test_a_child_that_ignores_the_signal_is_killed_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr("waitroom.drill.processes._STOP_SECONDS", 0.2)
    script = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'print(1, flush=True); input()'], stdin=subprocess.PIPE)\n"
        "inner.wait()\n"
    )
    async with asyncio.timeout(20):
        async with ChildProcesses() as processes:
            child = await processes.start("stubborn", [sys.executable, "-c", script], tmp_path, pipe=True)
            assert await child.first_line(10) == "1"
        assert child.process.returncode == -signal.SIGKILL
        # The grandchild held the same pipe: its end is the grandchild's end.
        assert await child.process.stdout.read() == b""


async def test_a_child_that_exits_immediately_is_reported_with_its_output(tmp_path):
    async with asyncio.timeout(20), ChildProcesses() as processes:
        command = [sys.executable, "-c", "import sys; sys.exit('the port is taken')"]
        child = await processes.start("gateway", command, tmp_path, pipe=True)
        assert await processes.wait_any() is child
        with pytest.raises(ProcessFailedError, match=r"(?s)the gateway exited during startup.*the port is taken"):
            await child.first_line(10)


async def test_a_silent_child_times_out(tmp_path):
    async with asyncio.timeout(20), ChildProcesses() as processes:
        child = await processes.start(
            "mute", [sys.executable, "-c", "import signal; signal.pause()"], tmp_path, pipe=True
        )
        with pytest.raises(ProcessFailedError, match=r"printed nothing within 0\.1 s"):
            await child.first_line(0.1)


def processes():
    """All processes of ours with their arguments and environments."""
    listed = subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True, timeout=10)
    return listed.stdout


class RunningDemo:
    """The demo in a process, its temporary folder where we can look."""

    def __init__(self, folder, gateway, *arguments):
        self.folder = folder
        command = [sys.executable, "-c", DEMO, gateway, *(str(each) for each in arguments)]
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_until(self, words):
        text = ""
        for line in self.process.stdout:
            text += line
            if words in line:
                return text
        raise AssertionError(f"the demo ended without saying {words!r}:\n{text}")

    def finish(self):
        text, _ = self.process.communicate(timeout=60)
        return text

    def assert_nothing_is_left(self):
        assert list(self.folder.iterdir()) == []
        # Whatever the demo started has its folder in the environment.
        assert str(self.folder) not in processes()


@pytest.fixture
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")  # a short name: the path of the store's socket may not be a long one
    started = []

    def start(*arguments, gateway=str(FAKE_GATEWAY)):
        started.append(RunningDemo(folder, gateway, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
            each.process.communicate(timeout=30)
        each.process.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("gateway", [str(FAKE_GATEWAY), ""], ids=["stand-in", "waitroom"])
def test_the_demo_shows_both_worlds_and_cleans_up(demo, gateway):
    running = demo("no", 15, 120, gateway=gateway)
    running.read_until("  0 s  waiting")
    assert str(running.folder) in processes()
    text = running.finish()
    assert running.process.returncode == 0, text
    for part in (
        "without Waitroom:",
        "with Waitroom:    0 of",
        "arrived",
        "joined the queue",
        "admitted",
        "sold",
        "waited",
    ):
        assert part in text
    running.assert_nothing_is_left()


@pytest.mark.slow
def test_an_interrupted_gateway_leaves_nothing_behind(demo):
    running = demo("no", 20, 50, gateway="")
    running.read_until("  0 s  waiting")
    running.process.send_signal(signal.SIGINT)
    text = running.finish()
    assert running.process.returncode == 0, text
    assert "Visitors" in text
    running.assert_nothing_is_left()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_sums_up_and_cleans_up(demo, number):
    running = demo("no", 20, 50)
    running.read_until("  0 s  waiting")
    running.process.send_signal(number)
    text = running.finish()
    assert running.process.returncode == 0, text
    assert "Visitors" in text
    running.assert_nothing_is_left()


@pytest.mark.slow
def test_a_demo_interrupted_early_cleans_up(demo):
    running = demo("no", 60, 50)
    running.read_until("without Waitroom")
    running.process.send_signal(signal.SIGINT)
    text = running.finish()
    assert running.process.returncode == 0, text
    assert text.endswith("Stopped.\n")
    running.assert_nothing_is_left()


@pytest.mark.slow
def test_a_kept_demo_stays_up_until_interrupted(demo):
    running = demo("keep", 6, 20)
    text = running.read_until("keep running")
    origin = text.split("through the gateway: ")[1].split()[0]
    asked = subprocess.run(
        [sys.executable, "-c", f"import urllib.request; urllib.request.urlopen('{origin}.waitroom/status')"],
        timeout=20,
        check=False,
    )
    assert asked.returncode == 0
    running.process.send_signal(signal.SIGINT)
    running.finish()
    assert running.process.returncode == 0
    running.assert_nothing_is_left()


@pytest.mark.slow
def test_a_demo_whose_gateway_cannot_start_prints_the_cause(demo, tmp_path):
    broken = tmp_path.parent / f"{tmp_path.name}-broken.py"
    broken.write_text("import sys; sys.exit('the settings are wrong')")
    running = demo("no", 5, 10, gateway=str(broken))
    text = running.finish()
    assert running.process.returncode == 1
    assert "the gateway exited unexpectedly" in text
    assert "the settings are wrong" in text
    running.assert_nothing_is_left()


async def test_the_shops_capacity_can_be_changed_only_directly(browser, shop):
    async with browser.post(f"{shop}/capacity?connections=3") as answer:
        assert answer.status == 200
    assert (await stats(browser, shop))["capacity"] == 3
    async with browser.post(f"{shop}/capacity?connections=9", headers={"Waitroom-Room": "shop"}) as answer:
        assert answer.status == 403, "visitors come through the gateway"
    for wrong in ("0", "-1", "many", ""):
        async with browser.post(f"{shop}/capacity?connections={wrong}") as answer:
            assert answer.status == 400
    assert (await stats(browser, shop))["capacity"] == 3


def test_the_shop_refuses_to_start_with_a_secret_that_is_none(tmp_path, capsys):
    secrets = tmp_path / "secrets"
    secrets.write_text("hunter2\n")
    options = ["--data", str(tmp_path / "shop.sqlite"), "--room", "shop"]
    assert shop_main([*options, "--secrets-file", str(secrets)]) == 1
    error = capsys.readouterr().err
    assert "the shop can't start: secret 1 must have at least 32 characters" in error
    assert "hunter2" not in error
    assert shop_main([*options, "--secrets-file", str(tmp_path / "missing")]) == 1
    with pytest.raises(SystemExit):
        shop_main(options)
    assert "must be given together" in capsys.readouterr().err
