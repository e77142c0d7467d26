/* From number to handler; the trace of DEBUG enclaves. */
#include "libos.h"
#include "sys.h"

typedef long (*handler)(const long *a);
static const handler g_handler[512] = {
#define SYS(number, name, handler, level, note) [number] = handler,
#include "table.h"
#undef SYS
};
static const char *const g_name[512] = {
#define SYS(number, name, handler, level, note) [number] = #name,
#include "table.h"
#undef SYS
};
bool g_trace;

struct regs *sys_regs(void) { return (struct regs *)(self()->stack_top - 160); }

long sys_enosys(const long *a) { (void)a; return -ENOSYS; }

/* Which of the program's objects asked: the first return address on the stack that is in none of glibc's. */
static const char *caller(void)
{
    u64 sp = sys_regs()->rsp & ~7ull;
    for (u32 i = 0; i < 512 && user_read_ok(sp + 8 * i, 8); i++) {
        u64 word = ((const u64 *)sp)[i];
        const struct boot_object *o = object_at(word);
        if (!o || !object_holds(o, word, 1, false) || object_holds(o, word, 1, true) || o->flags & BOOT_OBJECT_INTERPRETER)
            continue;
        const char *name = boot_string(o->path), *last = name;
        for (const char *p = name; *p; p++)
            last = *p == '/' ? p + 1 : last;
        if (strcmp(last, "libc.so.6") && strcmp(last, "libpthread.so.0"))
            return last;
    }
    return boot_string(boot()->program_path);
}

void say_refused(const char *what)
{
    say("strongroom: %s refused, asked for by %s: no other program and no copy of this one can run inside an enclave; threads can", what, caller());
}

long sys_refused(const long *a)
{
    (void)a;
    say_refused(g_name[sys_regs()->orig_rax]);
    return -ENOSYS;
}

/* Called by entry.S. The answer goes to the frame's RAX; R11 and RCX as the instruction leaves them. */
long libos_dispatch(struct regs *r)
{
    long a[6] = {(long)r->rdi, (long)r->rsi, (long)r->rdx, (long)r->r10, (long)r->r8, (long)r->r9}, ret;
    u64 nr = r->orig_rax;
    r->r11 = r->rflags;
    lock();
    const char *name = nr < 512 && g_name[nr] ? g_name[nr] : "?";
    if (g_trace)
        say("[%d] %s(%ld) %lx %lx %lx %lx %lx %lx", tid_of(self()), name, (long)nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    ret = nr < 512 && g_handler[nr] ? g_handler[nr](a) : -ENOSYS;
    user_release();
    r->rax = (u64)ret;
    if (ret == -ENOMEM)
        mm_say_lacking();
    if (g_trace)
        say("[%d] %s = %lx", tid_of(self()), name, ret);
    signals_refresh(self());
    if (ret == -ERESTARTSYS && !self()->signal_work)
        r->rax = (u64)-EINTR;
    unlock();
    return ret;
}
