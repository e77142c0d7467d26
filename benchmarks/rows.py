"""The lines of the design's table ("How good is good enough"), in its order."""

from __future__ import annotations

ROWS: dict[str, str] = {
    "start": "start of a Python enclave that imports `cryptography` (warm VM, DC4s_v2, 48 MiB heap), from the "
             "request at the daemon to its first line, against the interpreter outside",
    "compute": "compute-bound Python, inside against outside",
    "allocation": "allocation-heavy Python within the EPC, inside against outside",
    "syscall": "system call served inside at a rewritten site, over native",
    "ecall": "ECALL round trip by the vDSO (hardware: 8,000–14,000 cycles)",
    "paging": "one page evicted and reloaded in place (hardware: about 40,000 cycles)",
    "measuring-tool": "measuring an enclave, warm, by `strongroom measure`, against SHA-256 over the same bytes",
    "measuring-processor": "measuring an enclave, warm, by the processor (ADD_PAGES to EINIT), against SHA-256 over "
                           "the same bytes",
    "quote-made": "quote made: signing work",
    "quote-verified": "quote verified, against `dcap-qvl` alone",
    "growth-measured": "growth on an SGX2 size: a heap page at the start (`edmm = true`), against a measured page",
    "growth-heap": "growth on an SGX1 size: a heap page at the start, against one fault of its memory",
}  # fmt: skip
