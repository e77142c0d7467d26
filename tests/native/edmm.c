/*
 * Pages that come, change and go (SGX2), or are written and executed, by the uapi header. Usage: edmm FILE.sgxs FILE.sig ROOM,
 * where ROOM is an offset in ELRANGE with nothing in it, or with pages of the image. Reads steps from its input, a line each, and prints what came of each:
 *   map PAGE COUNT PROT | accept PAGE FLAGS | extend PAGE FLAGS | copy PAGE FLAGS FROM | read PAGE | write PAGE VALUE | call PAGE
 *   put PAGE OFFSET VALUE | leaf NUMBER RBX RCX RDX (bytes from ROOM, or addresses from 2^40 on; says RAX and the arithmetic flags)
 *   restrict PAGE COUNT PERMISSIONS | types PAGE COUNT TYPE | remove PAGE COUNT | tcs PAGE LIKE | enter PAGE | sweep PAGE COUNT
 *   stay PAGE (a thread enters by this TCS and stays) | interrupt (it, by a signal)
 *   sweep-plain PAGE COUNT | race PAGE TIMES | own PAGE TIMES | outside PAGE VALUE
 * PAGE counts from ROOM. Numbers are in hexadecimal.
 */
#define LOADER_LIBRARY
#include "loader.c"

#include <pthread.h>
#include <signal.h>

#include "enclave.h"
#include "sgx_arch.h"

static vdso_sgx_enter_enclave_t enter;
static struct loaded l;
static uint64_t room;
static int thread; /* the TCS in use: one whose enclave faulted is left behind at CSSA 1 */

static uint64_t at(uint64_t page) { return l.base + room + page * PAGE; }
static uint64_t operand(uint64_t value) { return value >> 40 ? value : l.base + room + value; }

static void call(uint64_t tcs, uint64_t function, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    struct sgx_enclave_run run = {.tcs = tcs};
    struct call call = {0};
    const uint64_t words[4] = {a, b, c, d};
    memcpy(call.data, words, sizeof words);
    int r = enter(function, (uint64_t)&call, 0, 2, 0, 0, &run);
    if ((r || run.function != 4) && ++thread < l.tcs_count)
        printf("fault vector %u error %#x at %#llx\n", run.exception_vector, run.exception_error_code,
               (unsigned long long)(run.exception_addr ? run.exception_addr - l.base - room : 0));
    else if (!r && run.function == 4 && function == F_LEAF)
        printf("%#llx flags %#llx\n", (unsigned long long)call.out, (unsigned long long)call.count);
    else if (!r && run.function == 4)
        printf("%#llx\n", (unsigned long long)call.out);
}

static void answered(int ret, uint64_t count, uint64_t result)
{
    printf("%s count %#llx result %llu\n", ret ? strerrorname_np(errno) : "0", (unsigned long long)count, (unsigned long long)result);
}

/* A thread that stays inside by a TCS until a signal finds it there; what becomes of it then. */
static pthread_t inside;
static void on_nothing(int number) { (void)number; }
static void *stay(void *tcs)
{
    struct sgx_enclave_run run = {.tcs = (uint64_t)tcs};
    struct call c = {.in = 99};
    int r = enter(F_MEET, (uint64_t)&c, 0, 2, 0, 0, &run);
    printf("ret %d function %u vector %u error %#x\n", r, run.function, run.exception_vector, run.exception_error_code);
    return NULL;
}

/* One call by the TCS `number`; ~0 where it faults. */
static uint64_t quiet(int number, uint64_t function, uint64_t a, uint64_t b)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[number]};
    struct call c = {0};
    const uint64_t words[2] = {a, b};
    memcpy(c.data, words, sizeof words);
    return enter(function, (uint64_t)&c, 0, 2, 0, 0, &run) || run.function != 4 ? ~0ull : c.out;
}

static uint64_t move_eax(uint64_t value) { return 0xc300000000b8ull | value << 8; } /* mov $value, %eax; ret */

struct race { uint64_t page, times; _Atomic uint64_t written, seen; };

static void *race_write(void *argument)
{
    struct race *r = argument;
    for (uint64_t i = 1; i <= r->times; i++) {
        while (r->seen + 8 < i) /* neither runs away from the other */
            sched_yield();
        r->written = i;
        if (quiet(1, F_WRITE, at(r->page), move_eax(i)) == ~0ull)
            r->written = ~0ull;
    }
    return NULL;
}

/* One thread writes new code again and again, this one runs it: what it gives never goes back, and ends with the last. */
static void race(uint64_t page, uint64_t times)
{
    struct race r = {.page = page, .times = times};
    uint64_t before = 0, wrong = 0;
    pthread_t t;
    quiet(0, F_WRITE, at(page), move_eax(0));
    pthread_create(&t, NULL, race_write, &r);
    while (before < times) {
        uint64_t got = quiet(2, F_CALL, at(page), 0);
        wrong += got < before || got > r.written || got == ~0ull;
        r.seen = before = got;
    }
    pthread_join(t, NULL);
    printf("wrong %llu last %#llx\n", (unsigned long long)wrong, (unsigned long long)quiet(2, F_CALL, at(page), 0));
}

/* Code that writes the page it lies in: incq 9(%rip); mov 2(%rip), %rax; ret. The count that it gives in the end. */
static void own(uint64_t page, uint64_t times)
{
    uint64_t got = 0;
    quiet(0, F_WRITE, at(page), 0x480000000905ff48);
    quiet(0, F_WRITE, at(page) + 8, 0xc300000002058b);
    for (uint64_t i = 0; i < times; i++)
        got = quiet(0, F_CALL, at(page), 0);
    printf("%#llx\n", (unsigned long long)got);
}

/* Root's way to memory: whether any mapping of the page's content is read, or written, by /proc/PID/mem. */
static void outside(uint64_t page, uint64_t value)
{
    static uint64_t control[PAGE / 8] __attribute__((aligned(PAGE)));
    FILE *maps = fopen("/proc/self/maps", "r");
    int mem = open("/proc/self/mem", O_RDWR), reads = 0, writes = 0;
    char line[512];
    uint64_t word;
    mprotect(control, PAGE, PROT_READ);
    int shown = pread(mem, &word, 8, (off_t)(uintptr_t)control) == 8 && pwrite(mem, &word, 8, (off_t)(uintptr_t)control) == 8;
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx", &start, &end) != 2 || !(strstr(line, "sgx-epc") || strstr(line, "secretmem")))
            continue;
        for (; start < end; start += PAGE)
            if (start == at(page) || start >= l.base + l.size || start < l.base) {
                if (pread(mem, &word, 8, (off_t)start) != 8 || word != value)
                    continue;
                reads = 1;
                writes |= pwrite(mem, &word, 8, (off_t)start) == 8;
            }
    }
    printf("control %d read %d written %d\n", shown, reads, writes);
    fclose(maps);
    close(mem);
}

static void step(const char *verb, const uint64_t *a)
{
    uint64_t tcs = l.tcs[thread];
    if (!strcmp(verb, "map"))
        printf("%s\n", mmap((void *)at(a[0]), a[1] * PAGE, (int)a[2], MAP_SHARED | MAP_FIXED, l.fd, 0) == MAP_FAILED ? strerrorname_np(errno) : "0");
    else if (!strcmp(verb, "accept"))
        call(tcs, F_ENCLU, 5, a[1], at(a[0]), 0);
    else if (!strcmp(verb, "extend"))
        call(tcs, F_ENCLU, 6, a[1], at(a[0]), 0);
    else if (!strcmp(verb, "copy"))
        call(tcs, F_ENCLU, 7, a[1], at(a[0]), at(a[2]));
    else if (!strcmp(verb, "read"))
        call(tcs, F_READ, at(a[0]), 0, 0, 0);
    else if (!strcmp(verb, "write"))
        call(tcs, F_WRITE, at(a[0]), a[1], 0, 0);
    else if (!strcmp(verb, "put"))
        call(tcs, F_WRITE, at(a[0]) + a[1], a[2], 0, 0);
    else if (!strcmp(verb, "leaf"))
        call(tcs, F_LEAF, a[0], operand(a[1]), operand(a[2]), operand(a[3]));
    else if (!strcmp(verb, "call"))
        call(tcs, F_CALL, at(a[0]), 0, 0, 0);
    else if (!strcmp(verb, "race"))
        race(a[0], a[1]);
    else if (!strcmp(verb, "own"))
        own(a[0], a[1]);
    else if (!strcmp(verb, "outside"))
        outside(a[0], a[1]);
    else if (!strcmp(verb, "enter")) {
        struct sgx_enclave_run run = {.tcs = at(a[0])};
        struct call c = {.in = 41};
        int r = enter(F_ADD, (uint64_t)&c, 0, 2, 0, 0, &run);
        printf("ret %d function %u vector %u error %#x out %llu\n", r, run.function, run.exception_vector, run.exception_error_code,
               (unsigned long long)c.out);
    } else if (!strcmp(verb, "tcs")) { /* a TCS like the first, written word by word from inside */
        uint64_t words[9] = {0, 0, l.tcs[15] - l.base + PAGE, 3ull << 32, a[1], 0, l.tcs[15] - l.base + 4 * PAGE,
                             l.tcs[15] - l.base + 4 * PAGE, 0xfff00000fffull};
        words[8] = 0xfffull | 0xfffull << 32;
        for (uint64_t i = 0; i < 9; i++) {
            struct sgx_enclave_run run = {.tcs = tcs};
            struct call c = {0};
            const uint64_t pair[2] = {at(a[0]) + i * 8, words[i]};
            memcpy(c.data, pair, sizeof pair);
            enter(F_WRITE, (uint64_t)&c, 0, 2, 0, 0, &run);
        }
        printf("written\n");
    } else if (!strncmp(verb, "sweep", 5)) { /* all accepted (not by sweep-plain), filled, checked */
        uint64_t bad = 0;
        for (uint64_t i = 0; i < a[1] && !verb[5]; i++) {
            struct sgx_enclave_run run = {.tcs = tcs};
            struct call c = {0};
            const uint64_t words[3] = {5, 0x20b, at(a[0] + i)};
            memcpy(c.data, words, sizeof words);
            enter(F_ENCLU, (uint64_t)&c, 0, 2, 0, 0, &run);
            bad += run.function != 4 || c.out;
        }
        struct sgx_enclave_run run = {.tcs = tcs};
        for (uint64_t mode = PAGES_FILL; mode <= PAGES_CHECK; mode++) {
            struct call c = {0};
            const uint64_t words[5] = {at(a[0]), a[1], 9, 1, mode};
            memcpy(c.data, words, sizeof words);
            enter(F_PAGES, (uint64_t)&c, 0, 2, 0, 0, &run);
            bad += run.function != 4 || c.out;
        }
        printf("bad %llu\n", (unsigned long long)bad);
    } else if (!strcmp(verb, "stay")) {
        signal(SIGUSR1, on_nothing);
        pthread_create(&inside, NULL, stay, (void *)at(a[0]));
        usleep(200000);
        printf("inside\n");
    } else if (!strcmp(verb, "interrupt")) {
        pthread_kill(inside, SIGUSR1);
        pthread_join(inside, NULL);
    } else if (!strcmp(verb, "restrict")) {
        struct sgx_enclave_restrict_permissions p = {room + a[0] * PAGE, a[1] * PAGE, a[2], 0, 0};
        int r = ioctl(l.fd, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, &p);
        answered(r, p.count, p.result);
    } else if (!strcmp(verb, "types")) {
        struct sgx_enclave_modify_types p = {room + a[0] * PAGE, a[1] * PAGE, a[2], 0, 0};
        int r = ioctl(l.fd, SGX_IOC_ENCLAVE_MODIFY_TYPES, &p);
        answered(r, p.count, p.result);
    } else if (!strcmp(verb, "remove")) {
        struct sgx_enclave_remove_pages p = {room + a[0] * PAGE, a[1] * PAGE, 0};
        int r = ioctl(l.fd, SGX_IOC_ENCLAVE_REMOVE_PAGES, &p);
        answered(r, p.count, 0);
    } else
        printf("?\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *failed;
    char line[256], verb[32];
    size_t size, sig_size;
    if (argc < 4)
        return 2;
    void *sgxs = read_file(argv[1], &size), *sig = read_file(argv[2], &sig_size);
    enter = (vdso_sgx_enter_enclave_t)vdso_symbol("__vdso_sgx_enter_enclave");
    if (!sgxs || !sig || !enter)
        return 2;
    l.xfrm = 7;
    room = strtoull(argv[3], NULL, 0);
    int r = load(&l, sgxs, size, sig, &failed);
    if (r)
        return printf("%s: %s\n", failed, strerrorname_np(-r)), 1;
    while (fgets(line, sizeof line, stdin)) {
        unsigned long long a[4] = {0};
        if (sscanf(line, "%31s %llx %llx %llx %llx", verb, &a[0], &a[1], &a[2], &a[3]) >= 1)
            step(verb, (const uint64_t[4]){a[0], a[1], a[2], a[3]});
    }
    return 0;
}
