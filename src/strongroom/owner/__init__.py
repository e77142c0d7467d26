"""The data owner: keys, records, and the process that releases a key to an enclave it agrees with."""
