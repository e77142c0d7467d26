/* /dev/attestation: reports, quotes and keys as files (the names are Gramine's). */
#include <asm/unistd.h>
#include <linux/fcntl.h>

#include "libos.h"
#include "../sys/sys.h"

static u8 g_report_data[128] __attribute__((aligned(128)));
static struct sgx_targetinfo g_target;
static struct sgx_report g_report;
static struct sgx_keyrequest g_request;

static void report(const struct sgx_targetinfo *target) { libos_enclu(SGX_EREPORT, target, g_report_data, &g_report); }

static void own_target(struct sgx_targetinfo *to)
{
    static struct sgx_targetinfo zero;
    report(&zero);
    memset(to, 0, sizeof *to);
    memcpy(to->measurement, g_report.mrenclave, 32);
    to->attributes = g_report.attributes;
    to->xfrm = g_report.xfrm;
    to->configsvn = g_report.configsvn;
    to->miscselect = g_report.miscselect;
    memcpy(to->configid, g_report.configid, 64);
}

void attestation_versions(uint16_t *isvsvn, u8 cpusvn[16])
{
    static struct sgx_targetinfo zero;
    report(&zero);
    *isvsvn = g_report.isvsvn;
    memcpy(cpusvn, g_report.cpusvn, 16);
}

u64 attestation_seal_key(u32 policy, uint16_t isvsvn, const u8 cpusvn[16], const u8 keyid[32], u8 key[16])
{
    static u8 out[16] __attribute__((aligned(16)));
    memset(&g_request, 0, sizeof g_request);
    g_request.keyname = SGX_KEY_SEAL;
    g_request.keypolicy = (uint16_t)policy;
    g_request.isvsvn = isvsvn;
    memcpy(g_request.cpusvn, cpusvn, 16);
    memcpy(g_request.keyid, keyid, 32);
    g_request.attributemask = ~0ull & ~1ull; /* INIT is always set: the rest decides, DEBUG above all */
    g_request.xfrmmask = 3;
    g_request.miscmask = 0;
    u64 error = libos_enclu(SGX_EGETKEY, &g_request, out, NULL);
    memcpy(key, out, 16);
    memset(out, 0, 16);
    return error;
}

static bool egetkey(u32 policy, u8 key[16])
{
    static const u8 keyid[32];
    uint16_t isvsvn;
    u8 cpusvn[16];
    attestation_versions(&isvsvn, cpusvn);
    return !attestation_seal_key(policy, isvsvn, cpusvn, keyid, key);
}

/* The whole of `size` bytes through the socket to the quoting service, or false. */
static bool transfer(long nr, u8 *data, u64 size)
{
    for (u64 done = 0; done < size;) {
        if (nr == __NR_write)
            memcpy(ocall_data(), data + done, min64(size - done, DATA_MAX));
        long n = bounded(host((u64)nr, g_start->quote_fd, host_data_address(), min64(size - done, DATA_MAX)), min64(size - done, DATA_MAX));
        if (n == -EINTR)
            continue;
        if (n <= 0)
            return false;
        if (nr == __NR_read)
            memcpy(data + done, ocall_data(), (u64)n);
        done += (u64)n;
    }
    return true;
}

/* One exchange: u32 size, u8 op, body -> u32 size, u32 status, body. Bytes of the answer, or -errno. */
static long ask(u8 op, const void *body, u32 size, u8 *answer, u32 room)
{
    u8 message[512];
    u32 length = size + 1, head[2];
    if (g_start->quote_fd < 3)
        return -ENODEV;
    memcpy(message, &length, 4);
    message[4] = op;
    memcpy(message + 5, body, size);
    if (!transfer(__NR_write, message, 5 + size) || !transfer(__NR_read, (u8 *)head, 8))
        return -EIO;
    if (head[0] < 4 || head[0] - 4 > room || head[1])
        return -EIO;
    return transfer(__NR_read, answer, head[0] - 4) ? (long)head[0] - 4 : -EIO;
}

static long quote(u8 *to, u32 room)
{
    static struct sgx_targetinfo quoting;
    long n = ask(1, NULL, 0, (u8 *)&quoting, sizeof quoting);
    if (n != (long)sizeof quoting)
        return n < 0 ? n : -EIO;
    report(&quoting);
    return ask(2, &g_report, 432, to, room);
}

static long commit_data(struct file *f)
{
    memset(g_report_data, 0, 64);
    memcpy(g_report_data, f->buffer, min64(f->buffer_size, 64));
    return 0;
}
static long commit_target(struct file *f)
{
    memset(&g_target, 0, sizeof g_target);
    memcpy(&g_target, f->buffer, min64(f->buffer_size, 512));
    return 0;
}

/* A sealing key of a key request of the caller's: policy, ISVSVN, CPUSVN, KEYID in, the key out, in one descriptor. */
struct __attribute__((packed)) key_wish { uint16_t policy, isvsvn; u8 cpusvn[16], keyid[32]; };
_Static_assert(sizeof(struct key_wish) == 52, "key_wish");

static long commit_wish(struct file *f)
{
    struct key_wish wish;
    if (f->buffer_size != sizeof wish)
        return -EINVAL;
    memcpy(&wish, f->buffer, sizeof wish);
    f->buffer_size = 0;
    if (wish.policy != SGX_POLICY_MRENCLAVE && wish.policy != SGX_POLICY_MRSIGNER)
        return -EINVAL;
    if (attestation_seal_key(wish.policy, wish.isvsvn, wish.cpusvn, wish.keyid, f->buffer))
        return -EACCES;
    f->buffer_size = 16;
    return 0;
}

long attestation_open(const char *name, int flags, struct file **file)
{
    static const char *const names[] = {"user_report_data", "target_info", "my_target_info", "report", "quote", "attestation_type",
                                        "keys/_sgx_mrenclave", "keys/_sgx_mrsigner", "sealing_key"};
    const u32 count = sizeof names / sizeof *names;
    u32 which = 0;
    if (!strncmp(name, "keys/", 5) && enc_key_node(name + 5))
        return enc_key_open(name + 5, flags, file);
    while (which < count && strcmp(name, names[which]))
        which++;
    if (which == count)
        return -ENOENT;
    if (which > 1 && which != 8 && (flags & O_ACCMODE) != O_RDONLY)
        return -EACCES;
    struct file *f = file_new(FILE_BUFFER, (u32)flags);
    if (!f || !(f->buffer = kmalloc(16384))) {
        kfree(f);
        return -ENOMEM;
    }
    long n = 0;
    switch (which) {
    case 0:
        memcpy(f->buffer, g_report_data, 64);
        n = 64;
        f->buffer_room = 64;
        f->commit = commit_data;
        break;
    case 1:
        memcpy(f->buffer, &g_target, 512);
        n = 512;
        f->buffer_room = 512;
        f->commit = commit_target;
        break;
    case 2: {
        static struct sgx_targetinfo own;
        own_target(&own);
        memcpy(f->buffer, &own, 512);
        n = 512;
        break;
    }
    case 3:
        report(&g_target);
        memcpy(f->buffer, &g_report, 432);
        n = 432;
        break;
    case 4:
        n = quote(f->buffer, 16384);
        break;
    case 5:
        memcpy(f->buffer, "dcap", 4);
        n = 4;
        break;
    case 8:
        f->buffer_room = sizeof(struct key_wish);
        f->commit = commit_wish;
        break;
    default:
        n = egetkey(which == 6 ? SGX_POLICY_MRENCLAVE : SGX_POLICY_MRSIGNER, f->buffer) ? 16 : -EACCES;
    }
    if (n < 0) {
        file_drop(f);
        return n;
    }
    f->buffer_size = (u64)n;
    *file = f;
    return 0;
}
