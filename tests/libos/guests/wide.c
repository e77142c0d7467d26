/* A library whose segments ask for 2 MiB alignment, as numpy's do. */
int wide_data = 41;
int wide_next(void) { return ++wide_data; }
