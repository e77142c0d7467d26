"""Loaders that wait: a VM that was used twice in a short while has one ready, so that the next start does not wait for
a process, namespaces, file view, the library's injection and the first touch of secret memory.

A waiting loader holds nothing: no image, no page of an EPC. It takes part in its VM as a run does, and gives way to
whoever wants to change the VM (``drop``). One thread starts them, looks after them and ends them when they are old.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from strongroom.errors import StrongroomError
from strongroom.machine.level import Level
from strongroom.machine.waiting import readable
from strongroom.vm.live import LiveVm
from strongroom.vm.runs import Run, Warmth

ENVIRONMENT = "STRONGROOM_WAITING"
"""How many loaders wait in a VM that is in use, in the daemon's environment; 0: none."""
KEPT_SECONDS = 300.0
DELAY_SECONDS = 0.3
"""From a start to the next loader's, where the run takes longer: the start shall have the processors."""
FAILURES = 3
"""Loaders in a row that ended before they were ready; then none is started any more."""
log = logging.getLogger("strongroom.daemon")
Key = tuple[int, Level]


@dataclass
class _Place:
    """One VM at one level, held in use for as long as this is in the pool."""

    live: LiveVm
    level: Level
    used: float
    warmth: Warmth
    due: float | None = None
    run: Run | None = None


class Pool:
    """``make`` starts a waiting run; ``stay`` and ``leave`` count the pool in and out as a user of a VM."""

    def __init__(
        self,
        make: Callable[[LiveVm, Level, Warmth], Run],
        stay: Callable[[LiveVm], None],
        leave: Callable[[LiveVm], None],
    ) -> None:
        self._make, self._stay, self._leave = make, stay, leave
        self._wanted = os.environ.get(ENVIRONMENT) != "0"
        self._places: dict[Key, _Place] = {}
        self._failures: Counter[Key] = Counter()
        self._used: dict[Key, float] = {}
        self._lock = threading.Lock()
        self._ending = False
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._work, daemon=True, name="pool")
        if self._wanted:
            self._thread.start()

    def used(self, live: LiveVm, level: Level) -> bool:
        """A run begins there; whether another one did a short while ago, so that a third is to be expected."""
        key, now = (live.vm.id, level), time.monotonic()
        with self._lock:
            before = self._used.get(key)
            self._used[key] = now
        return before is not None and now - before < KEPT_SECONDS

    def take(self, live: LiveVm, level: Level) -> Run | None:
        """A loader that waits in this VM, now the caller's; None where there is none."""
        with self._lock:
            place = self._places.get((live.vm.id, level))
            if place is None or place.run is None or not place.run.ready or place.run.over:
                return None
            run, place.run = place.run, None
            return run

    def want(self, live: LiveVm, level: Level, warmth: Warmth, delay: float = 0.0) -> None:
        """The caller uses the VM: let a loader wait there, started after ``delay`` seconds. Raises VmInUse."""
        key = live.vm.id, level
        with self._lock:
            if self._ending or not self._wanted or self._failures[key] >= FAILURES:
                return
            now = time.monotonic()
            place = self._places.get(key)
            if place is None:
                self._stay(live)
                place = self._places[key] = _Place(live, level, now, warmth)
            place.used, place.warmth = now, warmth
            if place.run is None:
                place.due = min(now + delay, place.due or now + delay)
        self._wake()

    def drop(self, vm_id: int | None) -> int:
        """End the loaders that wait in one VM, or in all (None); returns how many. They are gone afterwards."""
        with self._lock:
            keys = [key for key in self._places if vm_id in (None, key[0])]
            places = [self._places.pop(key) for key in keys]
            self._used = {key: at for key, at in self._used.items() if vm_id not in (None, key[0])}
        for place in places:
            self._end(place)
        return sum(place.run is not None for place in places)

    def close(self) -> None:
        with self._lock:
            self._ending = True
        self._wake()
        if self._wanted:
            self._thread.join()
        self.drop(None)

    @property
    def count(self) -> int:
        """Loaders that wait: one of them is what the next run takes. Those that still start are not."""
        with self._lock:
            return sum(place.run is not None and place.run.ready for place in self._places.values())

    def _end(self, place: _Place) -> None:
        """The place is out of the pool."""
        if place.run is not None:
            place.run.close()
        self._leave(place.live)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b".")

    def _work(self) -> None:
        while not self._ending:
            with self._lock:
                places = list(self._places.values())
                watched = [sock for place in places if place.run is not None for sock in place.run.sockets]
                times = [place.used + KEPT_SECONDS for place in places]
                times += [place.due for place in places if place.due is not None]
            wait = max(0.0, min(times) - time.monotonic()) if times else None
            try:
                readable([self._wake_read, *watched], wait)
            except (OSError, ValueError):
                pass  # one of them was taken, and closed meanwhile
            with contextlib.suppress(OSError):
                os.read(self._wake_read, 4096)
            self._look()
            self._start_due()

    def _look(self) -> None:
        """What have the loaders said? Ends what is over, old, or never gets ready."""
        runs: list[Run] = []
        places: list[_Place] = []
        now = time.monotonic()
        with self._lock:
            for key, place in list(self._places.items()):
                if place.run is not None and not self._well(key, place.run):
                    runs.append(place.run)
                    place.run = None
                if now - place.used >= KEPT_SECONDS or self._failures[key] >= FAILURES:
                    places.append(self._places.pop(key))
        for run in runs:
            run.close()
        for place in places:
            self._end(place)

    def _well(self, key: Key, run: Run) -> bool:
        try:
            run.look()
        except (StrongroomError, OSError) as error:
            log.warning("a waiting loader could not start: %s", error)
            self._failures[key] += 1
            return False
        if run.ready:
            self._failures[key] = 0
        elif run.over:
            self._failures[key] += 1
        return not run.over

    def _start_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [(key, one) for key, one in self._places.items() if one.due is not None and one.due <= now]
            for _, place in due:
                place.due = None
        for key, place in due:
            try:
                self._stay(place.live)
            except StrongroomError:
                continue  # dropped meanwhile
            try:
                self._start(key, place)
            finally:
                self._leave(place.live)

    def _start(self, key: Key, place: _Place) -> None:
        try:
            run = self._make(place.live, place.level, place.warmth)
        except (StrongroomError, OSError, RuntimeError, MemoryError) as error:  # threads, descriptors, memory
            log.warning("no loader waits in VM %s: %s", place.live.vm.name, error)
            with self._lock:
                self._failures[key] += 1
            return
        with self._lock:
            kept = self._places.get(key) is place and place.run is None and not self._ending
            if kept:
                place.run = run
        if not kept:
            run.close()
