"""CPython's own regression tests (and a sample of numpy's), inside an enclave and outside: ``make conformance``."""
