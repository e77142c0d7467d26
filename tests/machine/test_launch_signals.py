"""A signal reaches the program, whenever it comes: one that Python learns of while the client already waits, too."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from strongroom.machine import client, launch, protocol


def test_a_signal_that_interrupts_nothing() -> None:
    """The wait is not ended by it: another thread gets it, as if it had come just before poll(2)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(10)
    told: list[int] = []

    def daemon() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        try:
            told.append(protocol.number(protocol.receive(theirs)[0], "signal", 1, 64))
        except protocol.Closed:
            pass  # the signal lay there
        protocol.send(theirs, {"exit": 0})

    ready = {"level": "faithful", "vm": "x", "size": "x"}
    other = threading.Thread(target=daemon)
    with launch.Spawned(client.Connection(ours), ready, bytes(32)) as spawned, theirs:
        with launch._forwarding(spawned.signal) as woken:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
            timer = threading.Timer(0.2, other.start)  # threads made before the mask take the signal
            timer.start()
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            try:
                status = spawned.wait(woken=woken)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            other.join()
    assert (status, told) == (0, [signal.SIGUSR1])


def test_a_daemon_that_goes_before_the_program_may_start() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ready = {"level": "faithful", "vm": "x", "size": "x"}
    with launch.Spawned(client.Connection(ours), ready, bytes(32)) as spawned:
        theirs.close()
        with pytest.raises(protocol.Closed, match="the daemon went away") as error:
            spawned.go()
        assert "daemon.log" in error.value.next_step
        spawned.signal(signal.SIGTERM)  # nobody is there to be told
