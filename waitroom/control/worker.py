"""The control process: admission ticks and the admin listener."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog
from aiohttp import web

from waitroom.control.api.event_routes import EventApi
from waitroom.control.api.report_routes import ReportApi
from waitroom.control.api.routes import Api
from waitroom.control.api.sale_links import SaleLinkApi
from waitroom.control.app import make_app
from waitroom.control.audit.account_changes import CHECK_SECONDS as ACCOUNTS_SECONDS
from waitroom.control.audit.account_changes import AccountWatcher
from waitroom.control.audit.anchors import Anchors
from waitroom.control.audit.keys import load_keys
from waitroom.control.audit.log import Audit
from waitroom.control.auth.accounts import Actor, Role, new_local_token, write_local_token
from waitroom.control.auth.login import Login
from waitroom.control.auth.login_store import LoginStore
from waitroom.control.auth.middleware import Access
from waitroom.control.auth.passwords import PasswordChecker
from waitroom.control.auth.sale_links import SaleLinks
from waitroom.control.autopilot.runner import Controllers, RoomController, refresh_window
from waitroom.control.autopilot.state import DecisionLog, new_owner_id
from waitroom.control.dashboard.feed import Feed, Room, add_feed
from waitroom.control.dashboard.pages import Events, PastEvents, add_dashboard
from waitroom.control.dashboard.sale import SalePages
from waitroom.control.dashboard.sale_presenter import WAIT_SHARE, sale_texts
from waitroom.control.listener import AdminListener
from waitroom.control.monitoring.event_samples import ARCHIVE_SECONDS, EventArchiver, EventSamples
from waitroom.control.monitoring.eviction_watch import CHECK_SECONDS as EVICTION_SECONDS
from waitroom.control.monitoring.eviction_watch import EvictionWatch
from waitroom.control.monitoring.gateways import GatewayInfo
from waitroom.control.monitoring.history import History, record_history
from waitroom.control.monitoring.readiness import WorkerReports
from waitroom.control.monitoring.store_watch import ANNOUNCE_SECONDS, StoreWatch
from waitroom.control.private_files import PRIVATE_FILES
from waitroom.control.rooms.admission_loop import Admission
from waitroom.control.rooms.audit_outbox import FLUSH_SECONDS, AuditOutbox
from waitroom.control.rooms.changes import RoomChanges
from waitroom.control.rooms.event_operations import EventOperations
from waitroom.control.rooms.event_reports import EventReports
from waitroom.control.rooms.operations import Change, Operations
from waitroom.control.rooms.presenter import Rooms
from waitroom.control.rooms.shop_api import ShopApi
from waitroom.control.webhooks.watcher import Webhooks
from waitroom.jobs import Jobs
from waitroom.metrics.collectors import ShopCommandCollector, StoreCollector
from waitroom.metrics.recorder import METRICS_DIR
from waitroom.metrics.upstream_window import UpstreamWindow
from waitroom.net.forwarded import TrustedProxies
from waitroom.process.child import Child, run_child
from waitroom.process.data_dir import protect_files
from waitroom.queue.schedule import file_events
from waitroom.queue.store import QueueStore
from waitroom.queue.view import RoomView
from waitroom.settings import RoomSettings
from waitroom.store.connection import connect
from waitroom.store.health import StoreHealth

log = structlog.get_logger()

SHUTDOWN_SECONDS = 2.0
LOCAL_TOKEN_SECONDS = 1.0
STATS_SECONDS = 1.0  # as often as the edge workers write
# No visitor waits for history and audit log, and for operators a short delay is better than an error.
RECORDS_TIMEOUT_SECONDS = 2.0


async def serve(child: Child) -> None:
    """Ticks and serves until told to stop."""
    settings = child.settings
    assert settings.redis_url is not None
    protect_files(Path(settings.data_dir), PRIVATE_FILES)
    redis = connect(settings.redis_url)
    records = connect(settings.redis_url, timeout_seconds=RECORDS_TIMEOUT_SECONDS)
    stores = {room.name: QueueStore(redis, room.name) for room in settings.rooms}
    health = StoreHealth(log)
    admissions = [
        Admission(room, stores[room.name], health, file_events(room, settings.secrets[0])) for room in settings.rooms
    ]
    workers = WorkerReports()
    watch = UpstreamWindow(Path(settings.data_dir) / METRICS_DIR)
    who = new_owner_id()
    decision_logs = {room.name: DecisionLog(redis, room.name, who) for room in settings.rooms}
    controllers: dict[str, RoomController] = {}
    store_watch = StoreWatch(records, GatewayInfo.of(socket.gethostname(), settings.secrets))
    evictions = EvictionWatch(records)
    rooms = Rooms(
        settings,
        admissions,
        watch,
        workers.alive,
        lambda room: controllers[room].described(),
        gateway_hints=lambda: [*evictions.hints(), *store_watch.hints()],
    )
    keys = load_keys(Path(settings.data_dir), settings.audit_key, settings.accepted_audit_keys)
    audit, history = Audit(records, keys, Anchors(Path(settings.data_dir))), History(records)
    samples = EventSamples(records)
    reports = EventReports(stores, samples)
    feed = Feed(rooms.described, store_clock=store_watch.now)
    changes = RoomChanges(rooms, stores, audit, feed.notify)
    operations = Operations(rooms, stores, changes, settings.secrets)
    event_operations = EventOperations(rooms, stores, changes, settings.secrets)
    for room, admission in zip(settings.rooms, admissions, strict=True):
        controllers[room.name] = _controller(room, admission, decision_logs[room.name], operations)
    autopilots = Controllers(list(controllers.values()), watch)
    local_token = new_local_token()
    access = Access(settings, LoginStore(redis, key=settings.secrets[0]), audit, local_token)
    account_watcher = AccountWatcher(Path(settings.data_dir), settings.users, audit)
    passwords = PasswordChecker()
    policy = StoreCollector(lambda: evictions.policy)
    shop_api = ShopApi(stores, audit)
    commands = ShopCommandCollector(shop_api.counts)
    app = make_app(settings, admissions, access, workers, store_watch, policy, commands)
    api = Api(rooms, operations, shop_api, history, audit, decision_logs)
    event_api = EventApi(rooms, event_operations, audit)
    links = SaleLinks(redis, settings.secrets)
    sale_pages = SalePages(partial(_sale_figures, rooms, store_watch.now), links.check)
    apis = (api, event_api, ReportApi(reports), SaleLinkApi(rooms, links, audit), sale_pages)
    login = Login(access, passwords)
    add_endpoints(app, access, login, apis, feed, rooms.described, event_operations.described, reports.ended)
    listener = AdminListener(app, TrustedProxies(settings.trusted_proxies), shutdown_seconds=SHUTDOWN_SECONDS)
    try:
        await listener.start(child.listener)
        async with Jobs() as jobs:
            for admission in admissions:
                jobs.run(f"admission to {admission.name}", admission.run)
            jobs.every(ANNOUNCE_SECONDS, "other gateways", store_watch.check)
            jobs.every(EVICTION_SECONDS, "eviction policy", evictions.check)
            jobs.every(STATS_SECONDS, "upstream statistics", partial(refresh_window, watch))
            jobs.run("worker reports", partial(_receive_reports, child, workers))
            jobs.run("history", partial(record_history, history, rooms.samples))
            jobs.every(ARCHIVE_SECONDS, "event samples", EventArchiver(stores, samples).archive_all)
            jobs.run("autopilot", autopilots.run)
            jobs.every(ACCOUNTS_SECONDS, "account changes", account_watcher.check)
            jobs.every(FLUSH_SECONDS, "audit outbox", AuditOutbox(audit, stores).flush_all)
            jobs.every(FLUSH_SECONDS, "newest audit entries", audit.observe)
            if settings.webhooks:
                webhooks = Webhooks(
                    settings.webhooks,
                    admissions,
                    redis,
                    watch,
                    records=event_operations.records,
                    proxy_from_environment=settings.webhook_proxy_from_environment,
                )
                jobs.run("webhooks", webhooks.run)
            # Commands on this machine need the file. On a full disk they have to wait for it, but visitors don't.
            write_token = partial(asyncio.to_thread, write_local_token, Path(settings.data_dir), local_token)
            await asyncio.wait([jobs.run("local token", write_token)], timeout=LOCAL_TOKEN_SECONDS)
            await child.ready()
            await child.stop.wait()
        await store_watch.leave()
    finally:
        await listener.stop()
        await redis.aclose()
        await records.aclose()
        passwords.close()


class Routes(Protocol):
    """Routes of the admin listener."""

    def add_to(self, app: web.Application) -> None:
        """Adds them."""


def add_endpoints(
    app: web.Application,
    access: Access,
    login: Login,
    apis: Iterable[Routes],
    feed: Feed,
    described: Callable[[], Sequence[Room]],
    events: Events,
    past_events: PastEvents,
) -> None:
    """Adds everything that the admin listener serves besides what `make_app` adds."""
    login.install(app)
    for api in apis:
        api.add_to(app)
    add_feed(app, feed, access.still_allowed)
    add_dashboard(app, described, events, past_events)


def _sale_figures(rooms: Rooms, clock: Callable[[], float], room: str) -> dict[str, Any]:
    return sale_texts(rooms.one(room), rooms.sold(room), rooms.recent_wait(room, WAIT_SHARE), clock())


async def _receive_reports(child: Child, workers: WorkerReports) -> None:
    while True:
        workers.record(await child.messages.get())


def _controller(
    settings: RoomSettings, admission: Admission, decision_log: DecisionLog, operations: Operations
) -> RoomController:
    itself = Actor("autopilot", Role.OPERATOR, "", "autopilot")

    async def change(view: RoomView, rate: float, why: str) -> None:
        wanted = Change(rate_per_minute=rate)
        await operations.change(settings.name, wanted, expected=view.version, actor=itself, note=why)

    def switched(view: RoomView) -> bool:
        return settings.autopilot if view.autopilot is None else view.autopilot

    return RoomController(settings, admission, decision_log, change, switched, time.time)


def main() -> None:
    """Runs the control process: see `run_child`."""
    run_child("control", serve)
