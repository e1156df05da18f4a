"""What serves a running session besides its publisher: control channel, metrics, the service manager."""

import argparse
import contextlib
import logging
from collections.abc import Iterator

from engine.config import EngineConfig
from streaming.control.operations import Models, Operations
from streaming.control.server import ControlServer
from streaming.control.settings import LiveSettings
from streaming.endpoint import check_reach
from streaming.health import Health
from streaming.keys import Channel, load_server
from streaming.lane_factory import LaneFactory
from streaming.metrics import Metrics, require_prometheus
from streaming.metrics_server import MetricsServer, parse_address
from streaming.publisher import Publisher
from streaming.session import Session
from streaming.status import EngineStatus
from streaming.systemd import ServiceNotifier

_log = logging.getLogger("unseen.run")


def check(options: argparse.Namespace) -> None:
    """Refuse before anything is opened what `serve` and the publisher could not serve.

    Raises:
        UsageError: an endpoint others could reach, keys that cannot be used, or a missing package.
    """
    channels: dict[Channel, str | None] = {
        "data": None if options.no_publish else options.publish,
        "control": options.control,
    }
    for channel, endpoint in channels.items():
        if options.keys is not None:
            load_server(options.keys, channel)
        if endpoint is not None:
            check_reach(endpoint, insecure=options.insecure, authenticated=options.keys is not None)
    if options.metrics is not None:
        require_prometheus()
        parse_address(options.metrics, options.insecure)


@contextlib.contextmanager
def serve(
    options: argparse.Namespace,
    config: EngineConfig,
    session: Session,
    factory: LaneFactory,
    publisher: Publisher | None = None,
    models: Models | None = None,
) -> Iterator[None]:
    """Serve `session` as the command line says, until the context is left.

    Args:
        options: parsed options of `engine.run`.
        config: what the engine starts with.
        session, publisher: the engine at work and where its scenes go.
        factory: made the session's pipelines and makes further ones.
        models: the watched registry, None without one.

    Raises:
        UsageError: an address that cannot be bound, keys that cannot be used, or a missing package.
    """
    status = EngineStatus(session, session.report, publisher)
    health = Health(status)
    with contextlib.ExitStack() as services:
        control = None
        if options.control is not None:
            settings = LiveSettings(config, lambda changed: session.call(lambda: factory.configure(changed)))
            operations = Operations(session, status.to_dict, settings, models)
            keys = None if options.keys is None else load_server(options.keys, "control")
            control = services.enter_context(
                ControlServer(options.control, operations, insecure=options.insecure, keys=keys)
            )
            _log.info("control at %s", control.endpoint)
        if options.metrics is not None:
            server = services.enter_context(MetricsServer(options.metrics, health, insecure=options.insecure))
            server.metrics = Metrics(status, None if control is None else lambda: dict(control.counts))
            session.observe(server.metrics.frame)
            _log.info("metrics at http://%s:%d/metrics", server.host, server.port)
        services.enter_context(ServiceNotifier(health))
        yield
