/* A forked child: the enclaves' memory was not copied (MADV_DONTFORK), and the package is its parent's. */
#include "library.h"

/* Notices a fork by a page that the kernel hands to the child zeroed. True the first time in a child. */
bool fork_check(void)
{
    if (!g.fork_word || atomic_load(g.fork_word))
        return false;
    atomic_store(g.fork_word, 1);
    g.pid = (uint32_t)sys(__NR_getpid, 0);
    if (g.rpc_fd >= 0)
        sys(__NR_close, g.rpc_fd);
    g.rpc_fd = -1;
    g.epc = NULL;
    g.memory_lock = g.rpc_lock = g.signal_lock = 0;
    enclaves_forget();
    paging_forget();
    epc_forget();
    measuring_reset();
    threads_forget();
    return true;
}
