/* An enclave of the records of enclave.sgxs, by Linux's ioctls; and on SGX2 what its heap gives back. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot.h"
#include "loader.h"

#define SGX_PAGE_TYPE_TRIM 4 /* SDM vol. 3D, "SECINFO.FLAGS.PT" */

const uint8_t *map_file(int fd, const char *name, uint64_t *size)
{
    struct stat st;
    if (fstat(fd, &st))
        fail("%s: %s", name, strerror(errno));
    *size = (uint64_t)st.st_size;
    void *at = mmap(NULL, *size ? *size : 1, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED)
        fail("%s: %s", name, strerror(errno));
    return at;
}

static int g_device = -1;               /* kept where the heap grows and shrinks */
static struct { uint64_t base, size; int prot; } g_heap; /* SGX2: room for pages to come; from the boot information, size 0: none */

struct area { uint64_t start, end; int prot; };
static struct area *g_area;
static uint32_t g_areas;

static void area_add(uint64_t at, uint64_t size, int prot)
{
    if (g_areas && g_area[g_areas - 1].end == at && g_area[g_areas - 1].prot == prot) {
        g_area[g_areas - 1].end += size;
        return;
    }
    if (!(g_areas & (g_areas + 1)) || !g_area)
        g_area = realloc(g_area, (2 * g_areas + 2) * sizeof *g_area);
    if (!g_area)
        fail("no memory");
    g_area[g_areas++] = (struct area){at, at + size, prot};
}

static void add_pages(int device, const void *from, uint64_t at, uint64_t size, uint64_t flags, bool measure)
{
    struct { uint64_t flags; uint8_t zero[56]; } __attribute__((aligned(64))) secinfo = {flags, {0}};
    struct sgx_enclave_add_pages add = {
        (uint64_t)from, at, size, (uint64_t)&secinfo, measure ? SGX_PAGE_MEASURE : 0, 0,
    };
    while (add.length) {
        add.count = 0;
        int ret = ioctl(device, SGX_IOC_ENCLAVE_ADD_PAGES, &add);
        if (ret && errno != EINTR && errno != EAGAIN)
            fail("adding the enclave's pages at %#llx: %s%s", (unsigned long long)at, strerror(errno),
                 errno == ENOMEM ? " (the EPC is full, and nothing more can be evicted: see strongroom fit)" : "");
        if (!add.count && !ret)
            break;
        add.src += add.count;
        add.offset += add.count;
        add.length -= add.count;
    }
}

static uint64_t u64_at(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static uint32_t u32_at(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }

static uint64_t xcr0(void)
{
    uint32_t a = 1, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (!(c >> 27 & 1))
        return 3;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a | (uint64_t)d << 32;
}

#define BATCH (256 * PAGE)
#define ZEROS (1024 * PAGE)
void image_load(const uint8_t *s, uint64_t size, const uint8_t *sig)
{
    int device = open("/dev/sgx_enclave", O_RDWR | O_CLOEXEC);
    if (device < 0)
        device = open("/dev/sgx/enclave", O_RDWR | O_CLOEXEC);
    if (device < 0)
        fail("/dev/sgx_enclave: %s", strerror(errno));
    if (size < 64 || memcmp(s, "ECREATE", 8))
        fail("enclave.sgxs does not start with ECREATE");
    uint8_t *secs = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *batch = mmap(NULL, BATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (secs == MAP_FAILED || batch == MAP_FAILED)
        fail("no memory");
    uint32_t ssa_frame = u32_at(s + 8), misc = u32_at(sig + 900) | 1;
    uint64_t elrange = u64_at(s + 12), attributes = u64_at(sig + 928), xfrm = xcr0() & 0xe7, base = 0;
    memcpy(secs, &elrange, 8);
    memcpy(secs + 8, &base, 8);
    memcpy(secs + 16, &ssa_frame, 4);
    memcpy(secs + 20, &misc, 4);
    memcpy(secs + 48, &attributes, 8);
    memcpy(secs + 56, &xfrm, 8);
    struct sgx_enclave_create create = {(uint64_t)secs};
    if (ioctl(device, SGX_IOC_ENCLAVE_CREATE, &create)) {
        misc = u32_at(sig + 900); /* a processor without EXINFO */
        memcpy(secs + 20, &misc, 4);
        if (ioctl(device, SGX_IOC_ENCLAVE_CREATE, &create))
            fail("creating the enclave: %s", strerror(errno));
    }
    step_done("created");
    uint64_t at = 64;
    /* What unmeasured pages of zeros are added from, again and again: a page's first read costs a fault. */
    uint8_t *zero = mmap(NULL, ZEROS, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (zero == MAP_FAILED)
        fail("no memory");
    madvise(zero, ZEROS, MADV_HUGEPAGE);
    while (at < size) {
        if (at + 64 > size)
            fail("enclave.sgxs is damaged (it ends within a record): build it again");
        /* One run: pages that follow each other, with the same flags, all measured or none. */
        uint64_t start = 0, length = 0, flags = 0, measured = 0;
        while (at + 64 <= size && length < (measured || !length ? BATCH : ~0ull)) {
            if (memcmp(s + at, "EADD\0\0\0\0", 8))
                fail("enclave.sgxs is damaged (unknown record at %llu): build it again", (unsigned long long)at);
            uint64_t offset = u64_at(s + at + 8), page_flags = u64_at(s + at + 16), next = at + 64;
            bool has = next + 64 <= size && !memcmp(s + next, "EEXTEND", 8);
            bool data = next + 64 <= size && !memcmp(s + next, "UNMEASRD", 8);
            uint64_t kind = has ? 1 : data ? 2 : 0;
            if (length && (offset != start + length || page_flags != flags || kind != measured))
                break;
            if (!length)
                start = offset, flags = page_flags, measured = kind;
            if (kind) {
                uint8_t *page = batch + length;
                if (size - next < 16 * 320 || memcmp(s + next + 15 * 320, has ? "EEXTEND" : "UNMEASRD", 8))
                    memset(page, 0, PAGE); /* it does not have all its parts */
                while (next + 320 <= size && !memcmp(s + next, has ? "EEXTEND" : "UNMEASRD", 8)) {
                    uint64_t to = u64_at(s + next + 8) - offset;
                    if (to > PAGE - 256)
                        break;
                    memcpy(page + to, s + next + 64, 256);
                    next += 320;
                }
            }
            if ((flags >> 8 & 0xff) == 1 && g_workers < THREADS_MAX)
                g_worker[g_workers++].tcs = offset;
            at = next;
            length += PAGE;
        }
        if (measured && start <= BOOT_ADDRESS && BOOT_ADDRESS < start + length) {
            const struct boot_info *info = (const void *)(batch + (BOOT_ADDRESS - start));
            if (info->magic == BOOT_MAGIC && info->flags & BOOT_EDMM) {
                g_heap.base = info->heap_base;
                g_heap.size = info->heap_size;
                g_heap.prot = PROT_READ | PROT_WRITE | (info->late_size ? PROT_EXEC : 0);
            }
        }
        if (measured)
            add_pages(device, batch, start, length, flags, measured == 1);
        for (uint64_t done = 0, part; !measured && done < length; done += part) {
            part = length - done < ZEROS ? length - done : ZEROS;
            add_pages(device, zero, start + done, part, flags, false);
        }
        bool tcs = (flags >> 8 & 0xff) == 1;
        area_add(start, length, tcs ? PROT_READ | PROT_WRITE
                                    : (flags & 1 ? PROT_READ : 0) | (flags & 2 ? PROT_WRITE : 0) | (flags & 4 ? PROT_EXEC : 0));
    }
    if (g_heap.size)
        area_add(g_heap.base, g_heap.size, g_heap.prot);
    step_done("added");
    for (uint32_t i = 0; i < g_areas; i++)
        if (mmap((void *)g_area[i].start, g_area[i].end - g_area[i].start, g_area[i].prot, MAP_SHARED | MAP_FIXED, device, 0) ==
            MAP_FAILED)
            fail("mapping the enclave at %#llx: %s", (unsigned long long)g_area[i].start, strerror(errno));
    step_done("mapped");
    munmap(zero, ZEROS);
    munmap(batch, BATCH);
    munmap(secs, PAGE);
    g_device = device;
}

void image_start(const uint8_t *sig)
{
    struct sgx_enclave_init init = {(uint64_t)sig};
    int ret = ioctl(g_device, SGX_IOC_ENCLAVE_INIT, &init);
    if (ret > 0 || (ret && errno == EPERM))
        fail("the enclave is refused, its pages or its signature are not those that were built: build it again");
    if (ret)
        fail("starting the enclave: %s", strerror(errno));
    step_done("initialised");
    if (!g_heap.size)
        close(g_device);
}

/* Pages of the heap are trimmed, or those trimmed and accepted are removed (SGX2); how many bytes, as the kernel may stop short. */
int64_t pages_go(bool trim, uint64_t offset, uint64_t size)
{
    uint64_t done = 0;
    int ret = 0;
    while (done < size && (!ret || errno == EAGAIN || errno == EINTR)) {
        struct sgx_enclave_modify_types types = {offset + done, size - done, SGX_PAGE_TYPE_TRIM, 0, 0};
        struct sgx_enclave_remove_pages pages = {offset + done, size - done, 0};
        ret = trim ? ioctl(g_device, SGX_IOC_ENCLAVE_MODIFY_TYPES, &types) : ioctl(g_device, SGX_IOC_ENCLAVE_REMOVE_PAGES, &pages);
        done += trim ? types.count : pages.count;
    }
    return (int64_t)done;
}
