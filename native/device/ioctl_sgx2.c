/*
 * The ioctls of SGX2: EMODPR, EMODT, EREMOVE on pages of an initialised enclave. Checks and errnos in the order of
 * Linux's arch/x86/kernel/cpu/sgx/ioctl.c. `count` is how many bytes were dealt with; `result` an SGX error.
 */
#include "library.h"

/* Linux's sgx_ioc_sgx2_ready. */
static long ready(struct enclave *e)
{
    if (!(g.package.flags & RPC_HELLO_SGX2))
        return -ENODEV;
    return (atomic_load(&e->flags) & (ENCLAVE_INITIALIZED | ENCLAVE_LOST)) == ENCLAVE_INITIALIZED ? 0 : -EINVAL;
}

static bool range_good(struct enclave *e, uint64_t offset, uint64_t length)
{
    return page_aligned(offset) && length && page_aligned(length) && offset + length >= offset &&
           offset + length - SGX_PAGE_SIZE < e->secs.size;
}

/* The page's EPCM entry, in the EPC; NULL when there is no such page, or it cannot be had. */
static _Atomic uint64_t *page_of(struct enclave *e, uint64_t offset)
{
    _Atomic uint64_t *entry = &e->epcm[offset / SGX_PAGE_SIZE];
    return atomic_load(entry) & EPCM_VALID && !paging_in(e, offset) ? entry : NULL;
}

/* EMODPR: permissions can only go. 0, or an SGX error. */
static uint64_t emodpr(_Atomic uint64_t *entry, uint64_t permissions)
{
    uint64_t was = atomic_load(entry);
    if (was & (EPCM_PENDING | EPCM_MODIFIED))
        return SGX_PAGE_NOT_MODIFIABLE;
    uint64_t gone = (EPCM_R | EPCM_W | EPCM_X) & ~(permissions << 1);
    atomic_store(entry, (was & ~gone) | EPCM_PR);
    return 0;
}

long ioctl_restrict(struct enclave *e, struct sgx_enclave_restrict_permissions *user)
{
    struct sgx_enclave_restrict_permissions p;
    long ret = ready(e);
    if (ret)
        return ret;
    if (copy_host(&p, user, sizeof p))
        return -EFAULT;
    if (!range_good(e, p.offset, p.length) || p.permissions & ~7ull ||
        (p.permissions & (SGX_SECINFO_W | SGX_SECINFO_R)) == SGX_SECINFO_W || p.result || p.count)
        return -EINVAL;
    for (; p.count < p.length && !ret; p.count += ret ? 0 : SGX_PAGE_SIZE) {
        lock(&g.memory_lock);
        _Atomic uint64_t *entry = page_of(e, p.offset + p.count);
        if (!entry)
            ret = -EFAULT;
        else if (atomic_load(entry) & (EPCM_TCS | EPCM_TRIM))
            ret = -EINVAL;
        else if ((p.result = emodpr(entry, p.permissions)))
            ret = -EFAULT;
        else
            memory_refresh(e, p.offset + p.count, SGX_PAGE_SIZE); /* and with it what ETRACK is for */
        unlock(&g.memory_lock);
    }
    return copy_host(user, &p, sizeof p) ? -EFAULT : ret;
}

long ioctl_types(struct enclave *e, struct sgx_enclave_modify_types *user)
{
    struct sgx_enclave_modify_types p;
    long ret = ready(e);
    if (ret)
        return ret;
    if (copy_host(&p, user, sizeof p))
        return -EFAULT;
    if (!range_good(e, p.offset, p.length) || p.page_type & ~0xffull || p.result || p.count)
        return -EINVAL;
    bool tcs = p.page_type == SGX_SECINFO_TCS >> 8;
    if (!tcs && p.page_type != SGX_SECINFO_TRIM >> 8)
        ret = -EINVAL;
    for (; p.count < p.length && !ret; p.count += ret ? 0 : SGX_PAGE_SIZE) {
        uint64_t offset = p.offset + p.count;
        lock(&g.memory_lock);
        _Atomic uint64_t *entry = page_of(e, offset);
        uint64_t was = entry ? atomic_load(entry) : 0;
        if (!entry)
            ret = -EFAULT;
        else if (was & EPCM_TRIM || (was & EPCM_TCS && tcs))
            ret = -EINVAL;
        else if (tcs && (was & (EPCM_MAX_R | EPCM_MAX_W)) != (EPCM_MAX_R | EPCM_MAX_W))
            ret = -EPERM;
        else if (was & (EPCM_PENDING | EPCM_MODIFIED)) {
            p.result = SGX_PAGE_NOT_MODIFIABLE;
            ret = -EFAULT;
        } else if (tcs && !code_to_data(e, offset)) {
            ret = -ENOMEM;
        } else {
            was = atomic_load(entry);
            if (tcs)
                paging_removed(e, offset); /* a TCS stays in the EPC, also one being trimmed: a thread may be in it */
            atomic_store(entry, (was & ~(EPCM_R | EPCM_W | EPCM_X | EPCM_TCS | EPCM_PR | EPCM_MAX_X)) | EPCM_MODIFIED | (tcs ? EPCM_TCS : EPCM_TRIM));
            memory_hide(e, offset, SGX_PAGE_SIZE);
        }
        unlock(&g.memory_lock);
    }
    return copy_host(user, &p, sizeof p) ? -EFAULT : ret;
}

long ioctl_remove(struct enclave *e, struct sgx_enclave_remove_pages *user)
{
    struct sgx_enclave_remove_pages p;
    long ret = ready(e);
    if (ret)
        return ret;
    if (copy_host(&p, user, sizeof p))
        return -EFAULT;
    if (!range_good(e, p.offset, p.length) || p.count)
        return -EINVAL;
    for (; p.count < p.length && !ret; p.count += ret ? 0 : SGX_PAGE_SIZE) {
        lock(&g.memory_lock);
        _Atomic uint64_t *entry = page_of(e, p.offset + p.count);
        if (!entry)
            ret = -EFAULT;
        else if ((atomic_load(entry) & (EPCM_TRIM | EPCM_MODIFIED)) != EPCM_TRIM)
            ret = -EPERM;
        else if (thread_has_tcs(e, p.offset + p.count))
            ret = -EBUSY;
        else
            memory_remove(e, p.offset + p.count);
        unlock(&g.memory_lock);
    }
    return copy_host(user, &p, sizeof p) ? -EFAULT : ret;
}
