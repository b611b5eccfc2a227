"""The doorbell: Celery messages that say there is work, and Redis notices that say there is news.

Nothing depends on either arriving. A message carries no payload and is acknowledged before its task runs; the tasks find their
work in the database, and the sweep rings again. So publishing may be lost, repeated, late or coalesced.
"""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import redis
import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from app.settings import Settings, get_settings

Queue = Literal["train", "io", "probe", "batch"]
TASKS: dict[Queue, str] = {
    "train": "ganvil.train",
    "io": "ganvil.io",
    "probe": "ganvil.probe",
    "batch": "ganvil.batch",
}
CHANNEL = "ganvil:jobs"  # carries the id of a job that has news
MOST_RINGS = 32  # waiting in a queue: more wake nobody who is not awake

log = structlog.get_logger()


def make_celery(settings: Callable[[], Settings]) -> Celery:
    """A Celery app that asks for the settings when it first needs one."""
    app = Celery("ganvil", set_as_current=False)
    app.add_defaults(lambda: _configuration(settings()))
    return app


def _configuration(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": settings.redis_url,
        "task_default_queue": "train",
        "task_routes": {name: {"queue": queue} for queue, name in TASKS.items()},
        # Early ack: Redis redelivers what is unacknowledged after an hour, and training takes longer.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        # A worker takes a message only when it has a slot, so that none waits behind a job of hours.
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_publish_retry": False,
        # Revokes and pings live in the database; the control queues' keys would only pile up in Redis.
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # however long Redis stays away, the worker is there when it comes back
        "broker_transport_options": _SOCKETS,
        "enable_utc": True,
    }


_SOCKETS = {
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 25,
}

celery = make_celery(get_settings)


class Bell:
    """Rings and notifies from a thread of its own: publishing to an absent Redis blocks for seconds, and no caller waits for it.

    What is asked for while a publication is under way is coalesced; what fails is logged and dropped.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.redis_url
        self._celery = make_celery(lambda: settings)
        self._rings: Counter[Queue] = Counter()
        self._news: set[str] = set()
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
        if self._url is not None:
            self._thread.start()

    def ring(self, queue: Queue, times: int = 1) -> None:
        """Say that there is work, to as many workers; returns at once."""
        if self._url is None:
            return
        with self._changed:
            self._rings[queue] = min(self._rings[queue] + times, MOST_RINGS)
            self._changed.notify()

    def notify(self, job_id: str) -> None:
        """Say that a job has news; returns at once."""
        if self._url is None:
            return
        with self._changed:
            self._news.add(job_id)
            self._changed.notify()

    def close(self) -> None:
        """Publish what is pending, if Redis answers quickly, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _run(self) -> None:
        assert self._url is not None
        with redis.Redis.from_url(self._url, **_SOCKETS) as client:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing or self._rings or self._news)
                    rings, self._rings = self._rings, Counter()
                    news, self._news = self._news, set()
                    closing = self._closing
                try:
                    self._publish(client, rings, news)
                except (OperationalError, redis.RedisError, OSError) as error:
                    log.warning("bell.dropped", rings=dict(rings), news=len(news), error=str(error))
                if closing:
                    break
        self._celery.close()

    def _publish(self, client: redis.Redis, rings: Counter[Queue], news: set[str]) -> None:
        for job_id in news:
            client.publish(CHANNEL, job_id)
        for queue, times in rings.items():
            waiting = int(client.llen(queue))
            for _ in range(min(times, MOST_RINGS - waiting)):
                self._celery.send_task(TASKS[queue], queue=queue, retry=False, ignore_result=True)
