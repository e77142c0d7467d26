/*
 * The heap on SGX2: no page of it is in the image. A page comes, zero, when it is first touched: the fault handler at CSSA 1
 * accepts (EACCEPT) a chunk of 16 at once. What the host adds on its own counts for nothing until it is accepted here.
 * Large ranges that were given back leave the EPC again: trimmed by the host, accepted here, removed by the host.
 * With late_code a page can be made executable (EMODPE), up to that size; it stays so until it leaves the EPC.
 */
#include "libos.h"
#include "../sys/sys.h"

#define CHUNK 0x10000ull
#define KEPT (64ull << 20) /* accepted memory that nobody uses stays up to this: the next allocation has it at once */
#define SECINFO_R 1ull
#define SECINFO_W 2ull
#define SECINFO_X 4ull
#define SECINFO_PENDING 8ull
#define SECINFO_MODIFIED 0x10ull
#define SECINFO_REG 0x200ull
#define SECINFO_TRIM 0x400ull
#define FETCH 0x10u /* page fault error code: an instruction fetch */

static u64 g_low, g_high;  /* the heap; g_high 0: no EDMM, or not started */
static u32 *g_chunk;       /* one bit a chunk: its pages are accepted, or being so */
static u64 g_unused;       /* bytes that are accepted and not in use; under g_lock */

/* EACCEPT of one page; 0, or SGX's error. */
static u64 accept(u64 page, u64 flags)
{
    struct { u64 flags, reserved[7]; } __attribute__((aligned(64))) secinfo = {flags, {0}};
    return libos_enclu(SGX_EACCEPT, &secinfo, (const void *)page, NULL);
}

/* Pages that are new here: each is zero and pending, or the host plays another game. */
static bool accept_range(u64 from, u64 to)
{
    u64 wrong = 0;
    for (u64 page = from; page < to; page += PAGE)
        wrong |= accept(page, SECINFO_REG | SECINFO_PENDING | SECINFO_R | SECINFO_W);
    return !wrong;
}

static bool taken(u64 chunk) { return __atomic_load_n(&g_chunk[chunk / 32], __ATOMIC_SEQ_CST) >> chunk % 32 & 1; }

/* The table's own pages come first, without a fault: the handler looks into it. Returns where it begins. */
u64 edmm_start(u64 low, u64 high)
{
    if (!(boot()->flags & BOOT_EDMM))
        return high;
    u64 size = page_up(((high - low) / CHUNK + 32) / 8);
    u64 table = high - size;
    if (!accept_range(table, high))
        cannot_start("the host gives no pages for the heap: edmm = true needs SGX2");
    g_chunk = (u32 *)table;
    g_low = low;
    __atomic_store_n(&g_high, table, __ATOMIC_SEQ_CST);
    return table;
}

/*
 * From the handler at CSSA 1: a page fault at `address`. A chunk is accepted once, by the thread that sets its bit; whoever faults
 * with the bit set runs its instruction again and accepts nothing: a second page that the host puts in the first one's place (EAUG
 * of what is accepted already, to zero or to swap it) is never taken, and all that the host gets is an enclave that stands still.
 */
enum edmm_answer edmm_fault(u64 address, u32 error)
{
    u64 high = __atomic_load_n(&g_high, __ATOMIC_SEQ_CST);
    if (!high || address < g_low || address >= high || error & FETCH)
        return EDMM_NOT_MINE;
    u64 chunk = (address - g_low) / CHUNK, start = g_low + chunk * CHUNK;
    u32 bit = 1u << chunk % 32;
    if (__atomic_fetch_or(&g_chunk[chunk / 32], bit, __ATOMIC_SEQ_CST) & bit)
        return EDMM_AGAIN;
    return accept_range(start, min64(start + CHUNK, high)) ? EDMM_AGAIN : EDMM_LOST;
}

/* Zeroes a range of the heap without touching what was never there. */
void mm_zero(u64 at, u64 size)
{
    u64 end = at + size, part;
    for (; at < end; at += part) {
        part = end - at;
        if (g_high) {
            u64 chunk = (at - g_low) / CHUNK, next = g_low + (chunk + 1) * CHUNK;
            part = min64(part, next - at);
            if (!taken(chunk))
                continue;
        }
        memset((void *)at, 0, part);
    }
}

static u64 taken_in(u64 from, u64 to)
{
    u64 size = 0;
    for (u64 at = from; at < to; at += CHUNK)
        size += taken((at - g_low) / CHUNK) ? CHUNK : 0;
    return size;
}

/* Whole chunks within a range. */
static bool chunks_of(u64 *at, u64 *end)
{
    *at = g_low + (*at - g_low + CHUNK - 1) / CHUNK * CHUNK;
    *end = g_low + (min64(*end, g_high) - g_low) / CHUNK * CHUNK;
    return *at < *end;
}

/* A range of the heap comes into use, or went out of it: what is kept for later has a bound. g_lock is held. */
void edmm_used(u64 at, u64 end)
{
    if (g_high && g_unused && chunks_of(&at, &end))
        g_unused -= min64(g_unused, taken_in(at, end));
}

/* ---- pages that were made executable ---- */
static struct range { u64 start, end; } g_exec[256]; /* no two meet */
static u32 g_execs;
static u64 g_exec_bytes;

/* The next part of [at, end) that is executable (`*exec`) or is not, from `at` on; where it ends. */
static u64 part_of(u64 at, u64 end, bool *exec)
{
    u64 stop = end;
    for (u32 i = 0; i < g_execs; i++) {
        if (at >= g_exec[i].start && at < g_exec[i].end) {
            *exec = true;
            return min64(end, g_exec[i].end);
        }
        if (g_exec[i].start > at)
            stop = min64(stop, g_exec[i].start);
    }
    *exec = false;
    return stop;
}

/* They leave the EPC: what comes in their place is data. */
static void exec_gone(u64 from, u64 to)
{
    for (u32 i = 0; i < g_execs; i++) {
        struct range r = g_exec[i];
        u64 low = r.start > from ? r.start : from, high = min64(r.end, to);
        if (low >= high)
            continue;
        g_exec_bytes -= high - low;
        g_exec[i] = (struct range){r.start, low};
        if (high < r.end && r.start < low && g_execs == sizeof g_exec / sizeof *g_exec)
            g_exec_bytes -= r.end - high; /* no place in the list: the rest counts no more, and stays executable */
        else if (high < r.end && r.start < low)
            g_exec[g_execs++] = (struct range){high, r.end};
        else if (high < r.end)
            g_exec[i] = (struct range){high, r.end};
        else if (low == r.start)
            g_exec[i--] = g_exec[--g_execs];
    }
}

bool edmm_may_execute(void) { return g_high && boot()->late_size; }

/* EMODPE of the heap's pages in the range that are not executable yet: 0, -EACCES where there is no such thing, -ENOMEM. */
long edmm_execute(u64 at, u64 size)
{
    struct { u64 flags, reserved[7]; } __attribute__((aligned(64))) secinfo = {SECINFO_REG | SECINFO_R | SECINFO_W | SECINFO_X, {0}};
    u64 end = at + size, wanted = 0;
    u32 parts = 0;
    bool exec;
    if (!edmm_may_execute() || at < g_low || end > g_high)
        return -EACCES;
    for (u64 from = at, to; from < end; from = to) {
        to = part_of(from, end, &exec);
        wanted += exec ? 0 : to - from;
        parts += !exec;
    }
    if (wanted > boot()->late_size - g_exec_bytes || g_execs + parts > sizeof g_exec / sizeof *g_exec)
        return late_full();
    for (u64 from = at, to; from < end; from = to) {
        to = part_of(from, end, &exec);
        if (exec)
            continue;
        for (u64 page = from; page < to; page += PAGE) {
            (void)*(volatile u8 *)page; /* it comes, where it is not there yet */
            libos_enclu(SGX_EMODPE, &secinfo, (const void *)page, NULL);
        }
        u32 i = 0; /* the one before grows, where there is one */
        while (i < g_execs && g_exec[i].end != from)
            i++;
        if (i < g_execs)
            g_exec[i].end = to;
        else
            g_exec[g_execs++] = (struct range){from, to};
        g_exec_bytes += to - from;
    }
    return 0;
}

/* Chunks [from, to) leave the EPC, or as many of them as the host trims; a chunk that went in part is made whole again. */
static void give_back(u64 from, u64 to)
{
    long trimmed = bounded(ocall(OCALL_TRIM, 0, from, to - from, 0, 0, 0, 0), to - from);
    u64 size = trimmed > 0 ? page_down((u64)trimmed) : 0, whole = size / CHUNK * CHUNK;
    exec_gone(from, from + size);
    for (u64 done = 0; done < size; done += PAGE)
        if (accept(from + done, SECINFO_TRIM | SECINFO_MODIFIED))
            libos_bug("the host did not trim a page that it says it did");
    if (size && ocall(OCALL_REMOVE, 0, from, size, 0, 0, 0, 0) != (long)size)
        libos_bug("the host did not remove a page that was trimmed");
    for (u64 chunk = (from - g_low) / CHUNK; chunk < (from + whole - g_low) / CHUNK; chunk++)
        __atomic_fetch_and(&g_chunk[chunk / 32], ~(1u << chunk % 32), __ATOMIC_SEQ_CST);
    if (!accept_range(from + whole, from + size))
        libos_bug("the host did not give back a page of a chunk that went in part");
}

void edmm_unused(u64 from, u64 to)
{
    if (!g_high || !chunks_of(&from, &to))
        return;
    g_unused += taken_in(from, to);
    if (g_unused <= KEPT)
        return;
    while (from < to) { /* runs of chunks that are there */
        u64 stop = from;
        while (stop < to && taken((stop - g_low) / CHUNK))
            stop += CHUNK;
        if (stop > from) {
            give_back(from, stop);
            g_unused -= min64(g_unused, stop - from);
        }
        from = stop + CHUNK;
    }
}
