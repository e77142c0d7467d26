/*
 * The ioctls of /dev/sgx_enclave. Checks and errnos in the order of Linux's arch/x86/kernel/cpu/sgx/ioctl.c;
 * a leaf that would fault there gives EIO, an EINIT that returns an error code EPERM.
 */
#include "library.h"

#define ATTR_RESERVED (~(SGX_ATTR_INIT | SGX_ATTR_DEBUG | SGX_ATTR_MODE64BIT | SGX_ATTR_PROVISIONKEY | \
                         SGX_ATTR_EINITTOKENKEY | SGX_ATTR_KSS | SGX_ATTR_AEXNOTIFY))
#define ATTR_UNPRIVILEGED (SGX_ATTR_DEBUG | SGX_ATTR_MODE64BIT | SGX_ATTR_KSS | SGX_ATTR_AEXNOTIFY)

/* ECREATE's checks (SDM vol. 3D, ECREATE, "Operation"). */
static bool ecreate_accepts(const struct sgx_secs *s)
{
    uint64_t xsave = 0;
    if (s->size < 2 * SGX_PAGE_SIZE || s->size & (s->size - 1) || s->size > 1ull << 46 || s->base & (s->size - 1) ||
        (int64_t)s->base >> 47)
        return false;
    if (!all_zero(s->reserved1, sizeof s->reserved1) || !all_zero(s->reserved2, sizeof s->reserved2) ||
        !all_zero(s->reserved3, sizeof s->reserved3) || !all_zero(s->reserved4, sizeof s->reserved4))
        return false;
    if (s->attributes & (~g.package.attributes_allowed | SGX_ATTR_INIT | ATTR_RESERVED) || !(s->attributes & SGX_ATTR_MODE64BIT))
        return false;
    if (!(s->attributes & SGX_ATTR_KSS) && (!all_zero(s->configid, sizeof s->configid) || s->configsvn))
        return false;
    if (s->miscselect & ~(g.package.miscselect_allowed & SGX_MISC_EXINFO))
        return false;
    if ((s->xfrm & 3) != 3 || s->xfrm & ~g.xcr0 || s->xfrm & ~g.package.xfrm_allowed)
        return false;
    if ((s->xfrm & 0xe0) && (s->xfrm & 0xe4) != 0xe4)
        return false;
    xsave = xstate_mask_size(s->xfrm) + sizeof(struct sgx_gprsgx);
    if (s->miscselect & SGX_MISC_EXINFO)
        xsave += sizeof(struct sgx_exinfo);
    return s->ssa_frame_size <= 1u << 16 && s->ssa_frame_size * SGX_PAGE_SIZE >= xsave;
}

static long ioctl_create(struct enclave *e, void *argument)
{
    struct sgx_enclave_create create;
    struct sgx_secs secs;

    if (atomic_load(&e->flags) & (ENCLAVE_CREATED | ENCLAVE_LOST)) /* lost: the parent's, in a forked child */
        return -EINVAL;
    if (copy_host(&create, argument, sizeof create) || copy_host(&secs, (void *)create.src, sizeof secs))
        return -EFAULT;
    if (!secs.size || secs.size & (secs.size - 1))
        return -EINVAL;
    if (!ecreate_accepts(&secs))
        return -EIO;
    uint64_t table = memory_tables(secs.size);
    long p = sys(__NR_mmap, 0, table, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if ((unsigned long)p >= -4095ul)
        return -ENOMEM;
    filter_cover(secs.base, secs.size);
    epc_thread_start();
    lock(&g.memory_lock);
    keys_start();
    e->secs = secs;
    if (epc_charge(e, 1) || !paging_start(e)) { /* the SECS's own page, and tables */
        epc_return(e, e->pages);
        unlock(&g.memory_lock);
        sys(__NR_munmap, p, table);
        return -ENOMEM;
    }
    epc_demand(1);
    e->exist = 1;
    e->epcm = (void *)p;
    present_start(e, (uint64_t *)p + secs.size / SGX_PAGE_SIZE, secs.size / SGX_PAGE_SIZE);
    memset(e->secs.mrenclave, 0, 32);
    memset(e->secs.mrsigner, 0, 32);
    e->secs.isvprodid = e->secs.isvsvn = 0;
    e->attributes_mask = ATTR_UNPRIVILEGED;
    measure_ecreate(&e->measurement, &e->secs);
    /* Shut from the start: what is measured is what is run, whoever has mapped the device. */
    atomic_store(&e->closed, !(e->secs.attributes & SGX_ATTR_DEBUG));
    atomic_fetch_or(&e->flags, ENCLAVE_CREATED);
    unlock(&g.memory_lock);
    return 0;
}

static bool secinfo_accepts(const struct sgx_secinfo *s)
{
    uint64_t rwx = s->flags & 7, type = s->flags & SGX_SECINFO_TYPE;
    if (type != SGX_SECINFO_REG && type != SGX_SECINFO_TCS)
        return false;
    if ((rwx & SGX_SECINFO_W) && !(rwx & SGX_SECINFO_R))
        return false;
    if (type == SGX_SECINFO_TCS && rwx)
        return false;
    return !(s->flags & ~(7 | SGX_SECINFO_TYPE)) && all_zero(s->reserved, sizeof s->reserved);
}

/* EADD of a TCS: reserved bytes fault, the processor's own fields start at zero (SDM vol. 3D, EADD). */
static bool tcs_start(struct sgx_tcs *t)
{
    if (t->prevssp || t->ocetssa || !all_zero(t->reserved, sizeof t->reserved))
        return false;
    t->state = t->aep = 0;
    t->cssa = 0;
    t->flags &= ~SGX_TCS_DBGOPTIN;
    return true;
}

/* EADD and EEXTENDs of one page; 0 or -errno. The EADD of one that is not measured is the caller's to enter. */
static long add_page(struct enclave *e, uint64_t offset, const uint8_t *src, const struct sgx_secinfo *secinfo, bool measure)
{
    static const uint8_t zeros[SGX_PAGE_SIZE];
    _Alignas(64) uint8_t copy[SGX_PAGE_SIZE];
    const uint8_t *page = zeros; /* what is measured is what the page holds, whatever becomes of `src` meanwhile */
    bool tcs = (secinfo->flags & SGX_SECINFO_TYPE) == SGX_SECINFO_TCS;
    uint64_t flags = (secinfo->flags & 7) << 1 | (tcs ? EPCM_MAX_R | EPCM_MAX_W : (secinfo->flags & 7) << 48);

    if (atomic_load(&e->epcm[offset / SGX_PAGE_SIZE]) & EPCM_VALID)
        return -EBUSY;
    long zero = zero_host(src);
    if (zero < 0 || (tcs && copy_host(copy, src, sizeof copy)))
        return -EFAULT;
    if (tcs && !tcs_start((struct sgx_tcs *)copy))
        return -EIO;
    void *view = memory_add(e, offset, flags | (tcs ? EPCM_TCS : 0));
    if ((unsigned long)view >= -4095ul)
        return (long)view;
    if (tcs) {
        memcpy(view, copy, sizeof copy);
        page = view;
    } else if (!zero) { /* a zero page's backing is not touched */
        if (copy_host(view, src, SGX_PAGE_SIZE)) { /* it was readable a moment ago */
            atomic_fetch_or(&e->flags, ENCLAVE_BROKEN);
            return -EFAULT;
        }
        page = view;
    }
    if (measure)
        measuring_add(e, offset, secinfo->flags, page, 1);
    return 0;
}

/* Linux's sgx_validate_offset_length. */
bool range_good(struct enclave *e, uint64_t offset, uint64_t length)
{
    return page_aligned(offset) && length && page_aligned(length) && offset + length >= offset &&
           offset + length - SGX_PAGE_SIZE < e->secs.size;
}

static long ioctl_add_pages(struct enclave *e, struct sgx_enclave_add_pages *user)
{
    struct sgx_enclave_add_pages add;
    struct sgx_secinfo secinfo;
    uint64_t done = 0;
    long ret = 0;

    if ((atomic_load(&e->flags) & (ENCLAVE_CREATED | ENCLAVE_INITIALIZED | ENCLAVE_BROKEN)) != ENCLAVE_CREATED)
        return -EINVAL;
    if (copy_host(&add, user, sizeof add))
        return -EFAULT;
    if (!page_aligned(add.src) || !range_good(e, add.offset, add.length))
        return -EINVAL;
    if (copy_host(&secinfo, (void *)add.secinfo, sizeof secinfo))
        return -EFAULT;
    if (!secinfo_accepts(&secinfo))
        return -EINVAL;
    bool exec = (secinfo.flags & (SGX_SECINFO_X | SGX_SECINFO_W)) == SGX_SECINFO_X;
    while (done < add.length && !ret) {
        lock(&g.memory_lock);
        uint64_t from = done;
        memory_hint(e, add.offset + done, (add.length - done) / SGX_PAGE_SIZE, exec);
        for (unsigned i = 0; i < ADD_AT_ONCE && done < add.length; i++, done += SGX_PAGE_SIZE) {
            ret = add_page(e, add.offset + done, (uint8_t *)add.src + done, &secinfo, add.flags & SGX_PAGE_MEASURE);
            if (ret)
                break;
        }
        if (done > from && !(add.flags & SGX_PAGE_MEASURE))
            measuring_add(e, add.offset + from, secinfo.flags, NULL, (done - from) / SGX_PAGE_SIZE);
        if (!atomic_load(&e->closed)) /* DEBUG: from now on the program can write to them */
            measuring_settle();
        if (done > from)
            memory_show(e, add.offset + from, done - from);
        unlock(&g.memory_lock);
    }
    add.count = done;
    if (copy_host(&user->count, &add.count, sizeof add.count))
        return -EFAULT;
    return ret;
}

static long ioctl_init(struct enclave *e, void *argument)
{
    struct sgx_enclave_init init;
    struct rpc_einit request;
    struct rpc_einit_reply reply;
    struct sha256 measurement;
    const struct sgx_sigstruct *s = &request.sigstruct;

    if ((atomic_load(&e->flags) & (ENCLAVE_CREATED | ENCLAVE_INITIALIZED | ENCLAVE_BROKEN)) != ENCLAVE_CREATED)
        return -EINVAL;
    if (copy_host(&init, argument, sizeof init) || copy_host(&request.sigstruct, (void *)init.sigstruct, sizeof *s))
        return -EFAULT;
    if (s->vendor != 0 && s->vendor != 0x8086)
        return -EINVAL;
    if (e->secs.attributes & ~e->attributes_mask)
        return -EACCES;
    if (s->attributes & s->attributemask & (~g.package.attributes_allowed | ATTR_RESERVED))
        return -EINVAL;
    if (s->miscselect & s->miscmask & ~(g.package.miscselect_allowed & SGX_MISC_EXINFO))
        return -EINVAL;
    if (s->xfrm & s->xfrmmask & ~(g.xcr0 & g.package.xfrm_allowed))
        return -EINVAL;
    measuring_settle();
    measurement = e->measurement;
    sha256_finish(&measurement, e->secs.mrenclave);
    request.secs = e->secs;
    request.flags = e->attributes_mask & SGX_ATTR_PROVISIONKEY ? 1 : 0;
    uint32_t status = rpc_call(RPC_EINIT, &request, sizeof request, &reply, sizeof reply);
    if (status & (RPC_STATUS_ERRNO | RPC_STATUS_FAULT))
        return -EIO;
    if (status)
        return -EPERM;
    e->id = reply.enclave_id;
    memcpy(e->secs.mrsigner, reply.mrsigner, 32);
    e->secs.isvprodid = reply.isvprodid;
    e->secs.isvsvn = reply.isvsvn;
    e->secs.attributes |= SGX_ATTR_INIT;
    lock(&g.memory_lock);
    memory_seal(e);
    unlock(&g.memory_lock);
    if (!(e->secs.attributes & SGX_ATTR_DEBUG))
        atomic_store(&g.production, 1);
    if (g.level != LEVEL_FAITHFUL) /* a debugger may have what is DEBUG, as long as nothing else is here */
        sys(__NR_prctl, 4 /* PR_SET_DUMPABLE */, !atomic_load(&g.production) || g.flags & INJECT_DEBUG);
    atomic_fetch_or(&e->flags, ENCLAVE_INITIALIZED);
    return 0;
}

static long ioctl_provision(struct enclave *e, void *argument)
{
    struct sgx_enclave_provision provision;
    if (copy_host(&provision, argument, sizeof provision))
        return -EFAULT;
    if (!provision_is((int)provision.fd))
        return -EINVAL;
    e->attributes_mask |= SGX_ATTR_PROVISIONKEY;
    return 0;
}

/* An ioctl of type SGX_MAGIC on any descriptor. */
long device_ioctl(int fd, uint32_t command, void *argument)
{
    uint32_t idle = 0;
    long ret;

    struct enclave *e = enclave_of_fd(fd);
    if (e && atomic_load(&e->ioctl_busy)) /* at once: the ioctl under way may hold the lock for long */
        return -EBUSY;
    lock(&g.memory_lock); /* against the sweep of an enclave whose last descriptor is just being closed */
    e = enclave_of_fd(fd);
    bool mine = e && atomic_compare_exchange_strong(&e->ioctl_busy, &idle, 1);
    unlock(&g.memory_lock);
    if (!e)
        return sys(__NR_ioctl, fd, command, argument);
    if (!mine)
        return -EBUSY;
    switch (command) {
    case SGX_IOC_ENCLAVE_CREATE:
        ret = ioctl_create(e, argument);
        break;
    case SGX_IOC_ENCLAVE_ADD_PAGES:
        ret = ioctl_add_pages(e, argument);
        break;
    case SGX_IOC_ENCLAVE_INIT:
        ret = ioctl_init(e, argument);
        break;
    case SGX_IOC_ENCLAVE_PROVISION:
        ret = ioctl_provision(e, argument);
        break;
    case SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS:
        ret = ioctl_restrict(e, argument);
        break;
    case SGX_IOC_ENCLAVE_MODIFY_TYPES:
        ret = ioctl_types(e, argument);
        break;
    case SGX_IOC_ENCLAVE_REMOVE_PAGES:
        ret = ioctl_remove(e, argument);
        break;
    default:
        ret = -ENOTTY;
    }
    atomic_store(&e->ioctl_busy, 0);
    return ret;
}
