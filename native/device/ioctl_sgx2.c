/*
 * The ioctls of SGX2: EMODPR, EMODT, EREMOVE on pages of an initialised enclave. Checks and errnos in the order of
 * Linux's arch/x86/kernel/cpu/sgx/ioctl.c. `count` is how many bytes were dealt with; `result` an SGX error.
 */
#include "library.h"

/* The first two ioctls' structure; the third's has no `to` and no `result`. */
struct change { uint64_t offset, length, to, result, count; };
_Static_assert(sizeof(struct change) == sizeof(struct sgx_enclave_restrict_permissions) &&
                   sizeof(struct change) == sizeof(struct sgx_enclave_modify_types) &&
                   offsetof(struct change, to) == offsetof(struct sgx_enclave_restrict_permissions, permissions) &&
                   offsetof(struct change, to) == offsetof(struct sgx_enclave_modify_types, page_type) &&
                   offsetof(struct change, result) == offsetof(struct sgx_enclave_modify_types, result) &&
                   offsetof(struct change, count) == offsetof(struct sgx_enclave_modify_types, count),
               "one structure for both");

/* What is done to the page at `offset`; 0 or -errno, with `result` where that is an SGX error. */
typedef long (*page_change)(struct enclave *e, uint64_t offset, _Atomic uint64_t *entry, struct change *c);

/* Linux's sgx_ioc_sgx2_ready. */
static long ready(struct enclave *e)
{
    if (!(g.package.flags & RPC_HELLO_SGX2))
        return -ENODEV;
    return (atomic_load(&e->flags) & (ENCLAVE_INITIALIZED | ENCLAVE_LOST)) == ENCLAVE_INITIALIZED ? 0 : -EINVAL;
}

static bool change_good(struct enclave *e, const struct change *c) { return range_good(e, c->offset, c->length) && !c->result && !c->count; }

/* Calls `one` for each page, which is there and in the EPC, until it refuses. */
static long change_pages(struct enclave *e, struct change *c, page_change one)
{
    for (; c->count < c->length; c->count += SGX_PAGE_SIZE) {
        uint64_t offset = c->offset + c->count;
        _Atomic uint64_t *entry = &e->epcm[offset / SGX_PAGE_SIZE];
        lock(&g.memory_lock);
        long ret = atomic_load(entry) & EPCM_VALID && !paging_in(e, offset) ? one(e, offset, entry, c) : -EFAULT;
        unlock(&g.memory_lock);
        if (ret)
            return ret;
    }
    return 0;
}

/* An ioctl with a `to`, which `good` looks at. */
static long change(struct enclave *e, void *user, bool (*good)(uint64_t to), page_change one)
{
    struct change c;
    long ret = ready(e);
    if (ret)
        return ret;
    if (copy_host(&c, user, sizeof c))
        return -EFAULT;
    if (!change_good(e, &c) || !good(c.to))
        return -EINVAL;
    ret = change_pages(e, &c, one);
    return copy_host(user, &c, sizeof c) ? -EFAULT : ret;
}

/* EMODPR: permissions can only go. */
static long restrict_page(struct enclave *e, uint64_t offset, _Atomic uint64_t *entry, struct change *c)
{
    uint64_t was = atomic_load(entry), gone = (EPCM_R | EPCM_W | EPCM_X) & ~(c->to << 1);
    if (was & (EPCM_TCS | EPCM_TRIM))
        return -EINVAL;
    if (was & (EPCM_PENDING | EPCM_MODIFIED)) {
        c->result = SGX_PAGE_NOT_MODIFIABLE;
        return -EFAULT;
    }
    atomic_store(entry, (was & ~gone) | EPCM_PR);
    memory_refresh(e, offset, SGX_PAGE_SIZE); /* and with it what ETRACK is for */
    return 0;
}

static bool permissions_good(uint64_t to) { return !(to & ~7ull) && (to & (SGX_SECINFO_W | SGX_SECINFO_R)) != SGX_SECINFO_W; }

long ioctl_restrict(struct enclave *e, void *user) { return change(e, user, permissions_good, restrict_page); }

/* EMODT, to a TCS or to a page to be removed. */
static long type_page(struct enclave *e, uint64_t offset, _Atomic uint64_t *entry, struct change *c)
{
    uint64_t was = atomic_load(entry);
    bool tcs = c->to == SGX_SECINFO_TCS >> 8;
    if (was & EPCM_TRIM || (was & EPCM_TCS && tcs))
        return -EINVAL;
    if (tcs && (was & (EPCM_MAX_R | EPCM_MAX_W)) != (EPCM_MAX_R | EPCM_MAX_W))
        return -EPERM;
    if (was & (EPCM_PENDING | EPCM_MODIFIED)) {
        c->result = SGX_PAGE_NOT_MODIFIABLE;
        return -EFAULT;
    }
    if (tcs && !code_to_data(e, offset))
        return -ENOMEM;
    was = atomic_load(entry);
    if (tcs)
        paging_removed(e, offset); /* a TCS stays in the EPC, also one being trimmed: a thread may be in it */
    was &= ~(EPCM_R | EPCM_W | EPCM_X | EPCM_TCS | EPCM_PR | (tcs ? EPCM_MAX_X : 0));
    atomic_store(entry, was | EPCM_MODIFIED | (tcs ? EPCM_TCS : EPCM_TRIM));
    memory_hide(e, offset, SGX_PAGE_SIZE);
    return 0;
}

static bool type_good(uint64_t to) { return to == SGX_SECINFO_TCS >> 8 || to == SGX_SECINFO_TRIM >> 8; }

long ioctl_types(struct enclave *e, void *user) { return change(e, user, type_good, type_page); }

static long remove_page(struct enclave *e, uint64_t offset, _Atomic uint64_t *entry, struct change *c)
{
    (void)c;
    if ((atomic_load(entry) & (EPCM_TRIM | EPCM_MODIFIED)) != EPCM_TRIM)
        return -EPERM;
    if (thread_has_tcs(e, offset))
        return -EBUSY;
    memory_remove(e, offset);
    return 0;
}

long ioctl_remove(struct enclave *e, struct sgx_enclave_remove_pages *user)
{
    struct sgx_enclave_remove_pages p;
    long ret = ready(e);
    if (ret)
        return ret;
    if (copy_host(&p, user, sizeof p))
        return -EFAULT;
    struct change c = {.offset = p.offset, .length = p.length, .count = p.count};
    if (!change_good(e, &c))
        return -EINVAL;
    ret = change_pages(e, &c, remove_page);
    p.count = c.count;
    return copy_host(user, &p, sizeof p) ? -EFAULT : ret;
}
