/*
 * The table of enclaves. The program's descriptor is the writing end of a pipe: it can be duplicated, passed
 * and closed as it likes, is told apart by its inode, and when its last copy is closed our end sees it.
 */
#include "library.h"

#include <linux/poll.h>

/* The enclave that is mapped at the address; where none is, one whose ELRANGE holds it. */
struct enclave *enclave_at(uint64_t address)
{
    uint32_t count = atomic_load(&g.enclave_count);
    struct enclave *found = NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct enclave *e = g.enclave[i];
        if (!e || !atomic_load(&e->live) || !(atomic_load(&e->flags) & ENCLAVE_CREATED) || address - e->secs.base >= e->secs.size)
            continue;
        if (memory_vma_prot(e, address))
            return e;
        found = found ? found : e;
    }
    return found;
}

struct enclave *enclave_of_fd(int fd)
{
    uint32_t count = atomic_load(&g.enclave_count);
    struct stat st;
    if (!count || sys(__NR_fstat, fd, &st))
        return NULL;
    for (uint32_t i = 0; i < count; i++)
        if (g.enclave[i] && atomic_load(&g.enclave[i]->live) && g.enclave[i]->inode == st.st_ino &&
            g.enclave[i]->device == st.st_dev)
            return g.enclave[i];
    return NULL;
}

/* Does the range meet a mapping that some enclave's program made of the device? */
bool enclave_touches(uint64_t address, uint64_t size, struct enclave **found)
{
    for (uint32_t i = 0; i < atomic_load(&g.enclave_count); i++) {
        struct enclave *e = g.enclave[i];
        if (!e || !atomic_load(&e->live))
            continue;
        for (uint32_t v = 0; v < e->vma_count; v++)
            if (e->vma[v].start < address + size && address < e->vma[v].end) {
                *found = e;
                return true;
            }
    }
    return false;
}

/* How many enclaves' mappings the range meets. */
uint32_t enclaves_touched(uint64_t address, uint64_t size)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < atomic_load(&g.enclave_count); i++) {
        struct enclave *e = g.enclave[i];
        for (uint32_t v = 0; e && atomic_load(&e->live) && v < e->vma_count; v++)
            if (e->vma[v].start < address + size && address < e->vma[v].end) {
                count++;
                break;
            }
    }
    return count;
}

/* Whether enclaves_cut can follow a change of the range's mappings: 0, or -ENOMEM when a list of mappings is full. */
long enclaves_may_cut(uint64_t address, uint64_t size)
{
    for (uint32_t i = 0; i < atomic_load(&g.enclave_count); i++)
        if (g.enclave[i] && atomic_load(&g.enclave[i]->live) && g.enclave[i]->vma_count + 1 > VMAS_MAX)
            for (uint32_t v = 0; v < g.enclave[i]->vma_count; v++)
                if (g.enclave[i]->vma[v].start < address && address + size < g.enclave[i]->vma[v].end)
                    return -ENOMEM;
    return 0;
}

/* The range was unmapped or mapped anew: it is no enclave's any more, but `except`'s. True when it was. */
bool enclaves_cut(uint64_t address, uint64_t size, struct enclave *except)
{
    bool any = false;
    for (uint32_t i = 0; i < atomic_load(&g.enclave_count); i++) {
        struct enclave *e = g.enclave[i];
        if (!e || !atomic_load(&e->live) || e == except)
            continue;
        for (uint32_t v = 0; v < e->vma_count; v++)
            if (e->vma[v].start < address + size && address < e->vma[v].end) {
                memory_unmap(e, address, size);
                any = true;
                break;
            }
    }
    return any;
}

/* Frees enclaves that no descriptor, mapping or thread holds. Caller holds g.memory_lock. */
void enclave_sweep(void)
{
    for (uint32_t i = 0; i < atomic_load(&g.enclave_count); i++) {
        struct enclave *e = g.enclave[i];
        uint32_t idle = 0;
        if (!e || !atomic_load(&e->live) || e->vma_count || atomic_load(&e->inside) || atomic_load(&e->ioctl_busy))
            continue;
        struct pollfd p = {.fd = e->watch_fd};
        if (sys(__NR_poll, &p, 1, 0) != 1 || !(p.revents & POLLHUP))
            continue;
        if (!atomic_compare_exchange_strong(&e->ioctl_busy, &idle, 1)) /* one that began before the last close */
            continue;
        atomic_store(&e->live, 0);
        if (atomic_load(&e->inside)) { /* a thread came between: it looks at `live` after it counted itself */
            atomic_store(&e->live, 1);
            atomic_store(&e->ioctl_busy, 0);
            continue;
        }
        if (atomic_load(&e->flags) & ENCLAVE_INITIALIZED) {
            struct rpc_event_message event = {.enclave_id = e->id, .kind = RPC_EVENT_REMOVED};
            rpc_call(RPC_EVENT, &event, sizeof event, NULL, 0);
        }
        memory_release(e);
        sys(__NR_close, e->watch_fd);
        atomic_store(&e->ioctl_busy, 0);
    }
}

static long high_fd(int fd, int flags)
{
    long r = sys(__NR_fcntl, fd, flags, 700);
    return r >= 0 ? r : sys(__NR_fcntl, fd, flags, 100);
}

/* open("/dev/sgx_enclave"): a descriptor for a new enclave, or -errno. */
long enclave_open(int flags)
{
    int ends[2];
    struct stat st;
    struct enclave *e = NULL;
    if (!package_line())
        return -ENODEV;
    lock(&g.memory_lock);
    enclave_sweep();
    uint32_t slot = 0;
    for (; slot < ENCLAVES_MAX; slot++)
        if (!g.enclave[slot] || !atomic_load(&g.enclave[slot]->live))
            break;
    long ret = -ENOMEM;
    if (slot == ENCLAVES_MAX)
        goto out;
    if (g.enclave[slot]) {
        e = g.enclave[slot];
        /* A thread that came too late may still count itself there: it takes that back. */
        memset(e, 0, offsetof(struct enclave, inside));
        memset(&e->inside + 1, 0, sizeof *e - offsetof(struct enclave, inside) - sizeof e->inside);
    } else {
        long p = sys(__NR_mmap, 0, sizeof *e, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if ((unsigned long)p >= -4095ul)
            goto out;
        e = (struct enclave *)p;
    }
    ret = sys(__NR_pipe2, ends, O_CLOEXEC);
    if (ret)
        goto out;
    long watch = high_fd(ends[0], F_DUPFD_CLOEXEC);
    sys(__NR_close, ends[0]);
    long fd = watch < 0 ? watch : sys(__NR_fcntl, ends[1], flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
    sys(__NR_close, ends[1]);
    if (fd < 0) {
        if (watch >= 0)
            sys(__NR_close, watch);
        ret = fd;
        goto out;
    }
    sys(__NR_fstat, fd, &st);
    static uint64_t serials;
    e->serial = ++serials;
    e->watch_fd = (int32_t)watch;
    e->device = st.st_dev;
    e->inode = st.st_ino;
    e->mode = (uint32_t)flags & O_ACCMODE;
    g.enclave[slot] = e;
    atomic_store(&e->live, 1);
    if (slot >= atomic_load(&g.enclave_count))
        atomic_store(&g.enclave_count, slot + 1);
    ret = fd;
out:
    unlock(&g.memory_lock);
    return ret;
}

/*
 * In a forked child: its enclaves' memory was not copied, so they are lost there. They stay in the table while the child holds
 * their descriptors, with nothing to release, and stand in no other enclave's way.
 */
void enclaves_forget(void)
{
    for (uint32_t i = 0; i < atomic_load(&g.enclave_count); i++) {
        struct enclave *e = g.enclave[i];
        if (!e || !atomic_load(&e->live))
            continue;
        atomic_store(&e->flags, ENCLAVE_LOST);
        atomic_store(&e->inside, 0);
        atomic_store(&e->ioctl_busy, 0);
        e->vma_count = e->held_count = 0;
        e->epcm = NULL;
        e->cluster = e->clusters = NULL;
        e->store = NULL;
        e->both = NULL;
        e->pages = e->exist = e->refused_secret = 0;
        e->secs.size = 0;
    }
}

/* ---- /dev/sgx_provision: an empty memfd, told apart by its inode ---- */

static uint64_t provision_device, provision_inode;
static int32_t provision_fd = -1;

long provision_open(int flags)
{
    struct stat st;
    if (!package_line() || !(g.package.flags & RPC_HELLO_PROVISION))
        return -EACCES;
    lock(&g.memory_lock);
    if (provision_fd < 0) {
        long fd = sys(__NR_memfd_create, "sgx_provision", MFD_CLOEXEC);
        if (fd >= 0) {
            provision_fd = (int32_t)high_fd((int)fd, F_DUPFD_CLOEXEC);
            sys(__NR_close, fd);
        }
        if (provision_fd >= 0 && !sys(__NR_fstat, provision_fd, &st)) {
            provision_device = st.st_dev;
            provision_inode = st.st_ino;
        }
    }
    long ret = provision_fd < 0 ? -ENOMEM : sys(__NR_fcntl, provision_fd, flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
    unlock(&g.memory_lock);
    return ret;
}

bool provision_is(int fd)
{
    struct stat st;
    return provision_fd >= 0 && !sys(__NR_fstat, fd, &st) && st.st_ino == provision_inode && st.st_dev == provision_device;
}
