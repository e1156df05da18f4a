"""From `[NAME=]URI` to a lane: names, policies, what a dead source means at the start."""

import logging
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from engine.config import EngineConfig
from engine.errors import SourceError, UsageError
from engine.perceive.background import BackgroundCue
from engine.perceive.flow_network import FlowNetwork
from engine.perceive.network import Network
from engine.pipeline import Pipeline
from streaming.feed import Feed, Timeouts
from streaming.lane import Lane
from streaming.sources import default_name, is_live_uri, open_source, parse_source
from streaming.sources.base import Source, redact
from streaming.sources.camera import camera_identity
from streaming.sources.deferred import DeferredSource

_log = logging.getLogger("unseen.source")


class LaneFactory:
    """Opens sources the way the command line says, also while the engine runs.

    Args:
        config: every knob of a pipeline.
        network: the model.
        every: True keeps every frame, False the newest; None: files every frame, live sources the newest.
        paced: play files at their own frame rate; None: with the newest-frame policy.
        loop: files start again at the end.
        timeouts: of live sources.
        flow: computes the optical flow in place of OpenCV's.
        background: supplies the background map in place of the model's.
    """

    def __init__(
        self,
        config: EngineConfig,
        network: Network,
        *,
        every: bool | None = None,
        paced: bool | None = None,
        loop: bool = False,
        timeouts: Timeouts | None = None,
        flow: FlowNetwork | None = None,
        background: BackgroundCue | None = None,
    ) -> None:
        self._config = config
        self._network = network
        self._flow = flow
        self._background = background
        self._every = every
        self._paced = paced
        self._loop = loop
        self._timeouts = timeouts or Timeouts()
        self._pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()

    def configure(self, config: EngineConfig) -> None:
        """Have every pipeline made here, and every further one, follow `config`; between two frames."""
        self._config = config
        for pipeline in self._pipelines:
            pipeline.configure(config)

    def open(self, text: str) -> Lane:
        """A lane for `[NAME=]URI`.

        Raises:
            UsageError: a bad name, or wrong options inside the URI.
            SourceError: it cannot be opened.
        """
        name, uri = name_source(text)
        return self._lane(self._open(name, uri), uri)

    def open_all(self, texts: Sequence[str], *, require_all: bool = False) -> list[Lane]:
        """Lanes for several `[NAME=]URI`, opened at the same time.

        A live source that cannot be reached is tried again later, as long as another one can be.

        Args:
            require_all: refuse to start without it instead.

        Raises:
            UsageError: bad or equal names, or wrong options inside a URI.
            SourceError: a file that cannot be opened, no source at all, or one too few with `require_all`.
        """
        named = unique_names(texts)
        with ThreadPoolExecutor(len(named), thread_name_prefix="open") as pool:
            attempts = [pool.submit(self._open, name, uri) for name, uri in named]
            errors = [attempt.exception() for attempt in attempts]
        dead = [error for error in errors if error is not None]
        hopeless = [
            error
            for error, (_, uri) in zip(errors, named, strict=True)
            if error is not None and not (isinstance(error, SourceError) and is_live_uri(uri))
        ]
        if dead and (hopeless or require_all or len(dead) == len(named)):
            for attempt in attempts:
                if attempt.exception() is None:
                    attempt.result().close()
            raise (hopeless or dead)[0]
        lanes = []
        for attempt, (name, uri) in zip(attempts, named, strict=True):
            error = attempt.exception()
            if error is not None:
                reason = " ".join(str(error).split()).replace(uri, redact(uri))
                _log.warning('source=%s state=reconnecting was=new frames=0 reason="%s"', name, reason)
            source = attempt.result() if error is None else DeferredSource(uri, name, partial(self._open, name, uri))
            lanes.append(self._lane(source, uri))
        return lanes

    def keeps_every(self, live: bool) -> bool:
        """Whether a source keeps every frame."""
        return self._every if self._every is not None else not live

    def _open(self, name: str, uri: str) -> Source:
        return open_source(
            uri,
            name=name,
            loop=self._loop,
            open_timeout_s=self._timeouts.open_s,
            read_timeout_s=self._timeouts.read_s,
        )

    def _lane(self, source: Source, uri: str) -> Lane:
        feed = Feed(
            source,
            every=self.keeps_every(source.live),
            # The number of a camera may be another one's when it comes back: its identity is not.
            reopen=partial(self._open, source.name, camera_identity(uri)),
            timeouts=self._timeouts,
            paced=self._paced,
        )
        pipeline = Pipeline(self._config, self._network, self._flow, self._background)
        self._pipelines.add(pipeline)
        return Lane(feed, pipeline)


def name_source(text: str) -> tuple[str, str]:
    """(name, URI) of `[NAME=]URI`.

    Raises:
        UsageError: a name of dots and dashes only, which could not name a folder.
    """
    name, uri = parse_source(text)
    name = name if name is not None else default_name(uri)
    if not any(character.isalnum() for character in name):
        raise UsageError(f"source name '{name}': at least one letter or digit is needed")
    return name, uri


def unique_names(texts: Sequence[str]) -> list[tuple[str, str]]:
    """(name, URI) of each; a name made from the URI gets a number where it would be the second of its kind.

    Raises:
        UsageError: a name given twice.
    """
    given = [parse_source(text)[0] for text in texts]
    twice = {name for name in given if name is not None and given.count(name) > 1}
    if twice:
        raise UsageError(f"two sources are called '{min(twice)}': give each its own name, NAME=URI")
    taken = {name for name in given if name is not None}
    named = []
    for text, name_given in zip(texts, given, strict=True):
        stem, uri = name_source(text)
        name, number = stem, 2
        while name_given is None and name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        named.append((name, uri))
    return named
