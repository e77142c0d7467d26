/* Calls to the package, the part of the processor that holds the fuses (wire.h). One at a time. */
#include "library.h"

struct iovec_kernel { const void *base; size_t size; };

static uint32_t exchange(uint16_t op, const void *request, uint32_t size, void *reply, uint32_t reply_size)
{
    struct rpc_header header = {.magic = RPC_MAGIC, .version = RPC_VERSION, .op = op, .size = size};
    struct iovec_kernel out[2] = {{&header, sizeof header}, {request, size}};
    struct iovec_kernel in[2] = {{&header, sizeof header}, {reply, reply_size}};
    long n;

    if (g.rpc_fd < 0)
        return RPC_STATUS_ERRNO | ENOTCONN;
    do
        n = sys(__NR_writev, g.rpc_fd, out, 2);
    while (n == -EINTR);
    if (n < 0)
        return RPC_STATUS_ERRNO | (uint32_t)-n;
    do
        n = sys(__NR_readv, g.rpc_fd, in, 2);
    while (n == -EINTR);
    if (n < 0)
        return RPC_STATUS_ERRNO | (uint32_t)-n;
    if (n < (long)sizeof header || header.magic != RPC_MAGIC || header.version != RPC_VERSION ||
        header.op != (op | 0x8000) || header.size != n - sizeof header)
        return RPC_STATUS_ERRNO | EPROTO;
    if (!header.status && header.size != reply_size)
        return RPC_STATUS_ERRNO | EPROTO;
    return header.status;
}

uint32_t rpc_call(uint16_t op, const void *request, uint32_t size, void *reply, uint32_t reply_size)
{
    lock(&g.rpc_lock);
    uint32_t status = exchange(op, request, size, reply, reply_size);
    unlock(&g.rpc_lock);
    return status;
}
