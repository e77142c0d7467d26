"""One software SGX package and what serves it: manufacture, fuses, keys, EPC quota, quoting, the daemon."""
