"""A sealing key by /dev/attestation/sealing_key: sealing.py POLICY [ISVSVN CPUSVN]; prints the request and the key."""

import sys

from strongroom.inside import Attestation, DeviceError

device = Attestation()
policy, *versions = sys.argv[1:]
isv_svn, cpu_svn = (int(versions[0]), bytes.fromhex(versions[1])) if versions else device.versions()
try:
    print(isv_svn, cpu_svn.hex(), device.sealing_key(int(policy), isv_svn, cpu_svn, b"k" * 32).hex())
except DeviceError as error:
    print("refused:", error)
