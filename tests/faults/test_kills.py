"""kill -9 at random moments: of the client, the daemon, its spawner, the processes of a run, the program itself.

Each round: a few programs with real enclaves that page, some kills, and then nothing may be left, `vm list` is true
and the next round works. Seeded; `make faults` does hundreds (STRONGROOM_FAULTS rounds, STRONGROOM_SEED).
"""

from __future__ import annotations

import os
import random
import re
import time

from support.house import SECONDS, Client, House, Parts, kill

ROUNDS = int(os.environ.get("STRONGROOM_FAULTS", "5"))
SEED = int(os.environ.get("STRONGROOM_SEED", "1"))
LINE = re.compile(
    r"begun|good \d+|strongroom(-processor|-inject)?: .*|worker: (create|add|init): EIO|\{.*\}|\[.*\]|"
    r"[\w.-]+: (deleted|created|stopped|restarted).*"
)
ROLES = ("client", "client", "daemon", "daemon", "spawner", "between", "between", "program", "program")


def start(house: House, parts: Parts, chance: random.Random) -> Client:
    milliseconds = str(chance.choice((0, 100, 300, 800)))
    vm = chance.choice(("default", "small"))
    work = ["work", milliseconds, "3000"]
    if chance.random() < 0.25:
        return house.start(
            "exec", "--vm", vm, "--", str(parts.native / "strongroom-loader"), *parts.image, *work
        )
    return house.start("run", "--vm", vm, str(parts.project), "--", *work)


def strike(house: House, clients: list[Client], chance: random.Random) -> str:
    """Kill one process at random; its role."""
    role = chance.choice(ROLES)
    found = [one for one in house.processes() if one.role == role]
    if not found:
        return f"no {role}"
    victim = chance.choice(found)
    for client in clients:
        client.killed |= client.pid == victim.pid
    return role if kill(victim.pid) else f"late {role}"


def judge(client: Client) -> None:
    """It worked, or it is gone with a clear error."""
    lines = client.text.splitlines()
    for line in lines:
        assert LINE.fullmatch(line), client.text
    if client.killed:
        assert client.status in (137, 0), (client.status, client.text)
    elif client.status == 0:
        assert any(line.startswith("good ") for line in lines), client.text
    elif client.status == 125:
        # The host program of `exec` says what its ioctl gave, before our line or after it.
        assert any(re.match(r"strongroom(-processor)?: .+: |strongroom-inject: ", line) for line in lines), (
            client.text
        )
    elif client.status == 1:  # the host program of `exec` tells what its ioctl gave: the daemon is gone
        assert client.verb == "exec" and lines[-1].endswith(": EIO"), client.text
    else:
        assert client.status == 137, (client.status, client.text)


def test_killed_at_random_moments(house: House, parts: Parts) -> None:
    chance = random.Random(f"{SEED} {house.command.uid}")
    assert house.command("vm", "create", "small", "--size", "Standard_DC1s_v2").returncode == 0
    told = []
    for number in range(ROUNDS):
        clients = [start(house, parts, chance) for _ in range(chance.randint(1, 3))]
        for _ in range(chance.choice((1, 1, 2, 3))):
            time.sleep(chance.expovariate(4.0) if chance.random() < 0.8 else 0.0)
            told.append(strike(house, clients, chance))
        house.wait(clients)
        for client in clients:
            judge(client)
        house.settle()
        if number % 8 == 4:
            house.assert_true()
    last = house.start("run", "--vm", "small", str(parts.project), "--", "work", "50", "3000")
    house.wait([last])
    assert (last.status, "good " in last.text) == (0, True), last.text
    house.settle()
    house.assert_true()
    house.assert_clean()
    assert any(role in ROLES for role in told), told


def test_a_killed_programs_pages_are_free_when_it_is_dead(house: House, parts: Parts) -> None:
    """Killed with the command, a program under `exec` lives on for a moment, and charges pages in it."""
    holder = house.start("exec", "--", "/bin/sleep", "300")
    loader = str(parts.native / "strongroom-loader")
    chance = random.Random(f"{SEED} pages {house.command.uid}")
    for _ in range(max(10, ROUNDS)):
        clients = [house.start("exec", "--", loader, *parts.image, "work", "20000", "3000") for _ in range(4)]
        deadline = time.monotonic() + SECONDS
        while not any("begun" in client.text for client in clients):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))  # four do not fit: they page, or still add pages
        for client in clients:
            assert client.status is None, client.text
            client.killed = kill(client.pid)
        house.wait(clients)
        while (told := house.used_pages()) != {"default": 0}:
            assert time.monotonic() < deadline, told
            time.sleep(0.05)
    assert holder.status is None and kill(holder.pid)
    house.wait([holder])
    house.settle()
