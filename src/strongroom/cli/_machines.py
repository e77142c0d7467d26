"""The VMs of this user, for the verbs that change them without going through the daemon."""

from __future__ import annotations

import contextlib

from strongroom import paths
from strongroom.machine import client
from strongroom.vm.lifecycle import Machines
from strongroom.vm.manufacture import Fuses
from strongroom.vm.records import Records, Vm


def machines() -> Machines:
    """The records, with the daemon asked, where it runs, to end what runs in a VM. Raises StrongroomError."""

    def ask(operation: str, vm: Vm, **more: str) -> None:
        with contextlib.suppress(client.NoDaemon):
            client.ask(operation, {"id": vm.id, **more}, start=False)

    home = paths.ensure_home()
    return Machines(
        Records(home),
        Fuses(home),
        lambda vm, action: ask("vm_stop", vm, action=action),
        idle=lambda vm: ask("vm_idle", vm),
    )
