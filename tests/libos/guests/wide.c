/* A library whose segments ask for 2 MiB alignment, as numpy's do, and that is larger than its enclave's heap: it lies beside it. */
char wide_room[16 << 20];
int wide_data = 41;
int wide_next(void) { return ++wide_data; }
