"""The process that starts processes in VMs: ``python -m strongroom.vm.spawner FD``.

The daemon has threads and holds fuses; this process has neither, so it may fork. One request, one run:

    spawner ── monitor ── first ── program          (each the child of the one before)
               │           │         └ exec of the program, with its own user, limits, no privileges
               │           └ process id 1 of a namespace of its own: makes the file view, reaps, reports the status
               └ makes the namespaces; the daemon kills it to end the run

Each one asks the kernel for SIGKILL when its parent dies, and the end of "first" ends all in its namespace: nothing
outlives the daemon. They talk to the daemon by the run's status socket (JSON packets; the kernel adds the sender's
process id).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from typing import Any, NoReturn

from strongroom.errors import StrongroomError
from strongroom.machine import linux, protocol
from strongroom.machine.waiting import readable
from strongroom.vm import ids, view
from strongroom.vm.plan import Plan

FAILED = 125
# What root keeps in a VM that root started: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
# net_bind_service, net_raw, ipc_lock, sys_chroot, audit_write, setfcap (include/uapi/linux/capability.h).
_CONTAINER_ROOT = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 14, 18, 29, 31))
_ISOLATED = linux.CLONE_NEWPID | linux.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS


def main() -> None:
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    requests = socket.socket(fileno=int(sys.argv[1]))
    requests.settimeout(None)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # reaped by the kernel
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    own = os.getpid()
    while True:
        try:
            message, descriptors = protocol.receive(requests)
        except protocol.ProtocolError:
            continue  # it had more descriptors than this process may open: the run's socket is closed, its run ends
        except StrongroomError:
            os._exit(0)  # the daemon is gone: the kernel ends the monitors
        try:
            child = os.fork()
        except OSError as error:  # no more processes or memory
            with contextlib.suppress(OSError):
                words = json.dumps({"error": f"cannot start a process: {error.strerror}"}).encode()
                socket.socket(fileno=os.dup(descriptors[0])).send(words)
            child = -1
        if child == 0:
            requests.close()
            monitor(Plan.from_message(message), descriptors, own)
        protocol.close_all(descriptors)


class _Status:
    """The run's status socket."""

    def __init__(self, descriptor: int) -> None:
        self.sock = socket.socket(fileno=descriptor)
        self.sock.settimeout(30)

    def tell(self, **words: Any) -> None:
        self.sock.send(json.dumps(words).encode())

    def introduce(self, who: str) -> None:
        """Say who this is and wait until the daemon knows the process id."""
        self.tell(who=who)
        if self.sock.recv(16) != b"go":
            os._exit(FAILED)

    def fail(self, doing: str, error: BaseException) -> NoReturn:
        with contextlib.suppress(OSError):
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            place = getattr(error, "filename", None)
            self.tell(error=f"{doing}: {reason}" + (f" ({place})" if place else ""))
        os._exit(FAILED)


def _die_with_parent(parent: int, alive: int | None = None) -> None:
    """End when ``parent`` does. ``alive``: a pipe that only the parent holds open, where its id says nothing."""
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before: then no signal comes.
    if readable([alive], 0) if alive is not None else os.getppid() != parent:
        os._exit(FAILED)


def monitor(plan: Plan, descriptors: list[int], parent: int) -> NoReturn:
    """In a forked child of ``parent``, a process with one thread: be the monitor of one run."""
    status = _Status(descriptors[0])
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # A terminal's signals are for the program.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)
        if plan.session:
            os.setsid()
        _die_with_parent(parent)
        status.introduce("monitor")
        for file in plan.cgroup_files:
            with contextlib.suppress(OSError), open(file, "w", encoding="ascii") as group:
                group.write("0")
        userns = None
        if plan.isolate:
            if plan.binds and plan.uid is not None and not plan.user_namespace:
                with contextlib.suppress(OSError):
                    userns = ids.mapped_namespace(os.geteuid(), os.getegid(), plan.uid)
            _unshare(plan)
        own = os.getpid()
        alive, mine = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
    except BaseException as error:
        status.fail("cannot make the VM's namespaces", error)
    if child == 0:
        os.close(mine)
        _first(plan, status, descriptors, own, alive, userns)
    _, ended = os.waitpid(child, 0)
    os._exit(FAILED if ended else 0)


def _unshare(plan: Plan) -> None:
    if plan.user_namespace:
        uid, gid = os.geteuid(), os.getegid()
        linux.unshare(linux.CLONE_NEWUSER)
        with open("/proc/self/setgroups", "w", encoding="ascii") as file:
            file.write("deny")
        inside = plan.uid if plan.uid is not None else 0
        with open("/proc/self/uid_map", "w", encoding="ascii") as file:
            file.write(f"{inside} {uid} 1")
        with open("/proc/self/gid_map", "w", encoding="ascii") as file:
            file.write(f"{inside} {gid} 1")
    linux.unshare(_ISOLATED)


def _first(
    plan: Plan, status: _Status, descriptors: list[int], parent: int, alive: int, userns: int | None
) -> NoReturn:
    """Process id 1 of the run."""
    try:
        _die_with_parent(parent, alive)
        os.umask(0o022)
        if plan.isolate:
            linux.sethostname(plan.hostname)
            user = None if plan.user_namespace else plan.uid
            view.enter(plan.folder, plan.native, plan.binds, plan.mask, plan.cwd, userns, user)
        own = os.getpid()
        child = os.fork()
    except BaseException as error:
        status.fail("cannot make the VM's file view", error)
    if child == 0:
        _program(plan, status, descriptors, own)
    for descriptor in descriptors[1:]:  # the program's ends are the program's alone
        os.close(descriptor)
    while True:
        try:
            pid, ended = os.waitpid(-1, 0)
        except ChildProcessError:
            os._exit(FAILED)
        if pid == child:
            with contextlib.suppress(OSError):
                status.tell(exit=ended)
            os._exit(0)


def _program(plan: Plan, status: _Status, descriptors: list[int], parent: int) -> NoReturn:
    try:
        for name, (soft, hard) in plan.limits.items():
            _limit(getattr(resource, name), soft, hard)
        if plan.affinity:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, plan.affinity)
        _drop(plan)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which clears it
        if os.getppid() != parent:
            os._exit(FAILED)
        os.umask(0o022)
        os.chdir(plan.cwd)
        status.introduce("program")
        _arrange(status.sock.fileno(), descriptors[1:])
        for number in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):
                if number not in (signal.SIGKILL, signal.SIGSTOP):
                    signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execve(plan.argv[0], plan.argv, plan.environment)
    except BaseException as error:
        _Status(os.dup(_STATUS_AT) if _is_open(_STATUS_AT) else status.sock.fileno()).fail(
            f"cannot start {plan.argv[0]}", error
        )


_STATUS_AT = 200


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _limit(which: int, soft: int, hard: int) -> None:
    """Set a limit; where the hard one may not be raised, raise the soft one to it."""
    try:
        resource.setrlimit(which, (soft, hard))
    except (ValueError, OSError):
        _, most = resource.getrlimit(which)
        wanted = most if soft == resource.RLIM_INFINITY else min(soft, most if most >= 0 else soft)
        resource.setrlimit(which, (wanted, most))


def _drop(plan: Plan) -> None:
    """Become the program's user, without privileges."""
    if plan.uid is not None and not plan.user_namespace:
        os.setgroups([])
        for capability in range(64):
            if capability == linux.CAP_IPC_LOCK and plan.lock_memory:
                continue
            try:
                linux.prctl(linux.PR_CAPBSET_DROP, capability)
            except OSError:
                break
        if plan.lock_memory:
            linux.prctl(linux.PR_SET_KEEPCAPS, 1)
        os.setresgid(plan.uid, plan.uid, plan.uid)
        os.setresuid(plan.uid, plan.uid, plan.uid)
        if plan.lock_memory:
            linux.keep_capability(linux.CAP_IPC_LOCK)
    elif plan.confine:
        for capability in range(64):
            if not _CONTAINER_ROOT >> capability & 1:
                with contextlib.suppress(OSError):
                    linux.prctl(linux.PR_CAPBSET_DROP, capability)
    if plan.isolate or plan.uid is not None:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def _arrange(status: int, descriptors: list[int]) -> None:
    """Put the descriptors at 0, 1, 2, … and close everything else; the status socket goes when the program starts."""
    high = [os.dup2(number, 100 + place, inheritable=False) for place, number in enumerate(descriptors)]
    os.dup2(status, _STATUS_AT, inheritable=False)
    for place, number in enumerate(high):
        os.dup2(number, place, inheritable=True)
    os.closerange(len(high), 100)
    os.closerange(_STATUS_AT + 1, 4096)


if __name__ == "__main__":
    main()
