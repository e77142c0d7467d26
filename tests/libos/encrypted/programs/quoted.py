"""Prints this enclave's quote in hexadecimal."""

with open("/dev/attestation/quote", "rb") as file:
    print(file.read().hex())
