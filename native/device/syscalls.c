/* The system calls that the filter traps: served here, or made again from the library's exempt text. */
#include "library.h"

#define BIT(n) (1ull << ((n) - 1))
#define SIX (BIT(SIGILL) | BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGTRAP) | BIT(SIGSYS))
#define MAP_KIND 0x0f

static bool text_equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* -1 when the path is not one of the device's names. */
static long open_device(const char *user, int flags)
{
    char path[24];
    size_t i = 0;
    for (; i < sizeof path; i++) {
        if (copy_host(path + i, user + i, 1))
            return -1;
        if (!path[i])
            break;
        if (i < 5 && path[i] != "/dev/"[i])
            return -1;
    }
    if (i == sizeof path)
        return -1;
    if (text_equal(path, "/dev/sgx_enclave") || text_equal(path, "/dev/sgx/enclave"))
        return enclave_open(flags);
    if (text_equal(path, "/dev/sgx_provision") || text_equal(path, "/dev/sgx/provision"))
        return provision_open(flags);
    return -1;
}

static long do_mmap(const struct sigcontext *r)
{
    uint64_t address = r->rdi, size = page_up(r->rsi), flags = r->r10;
    struct enclave *e = flags & MAP_ANONYMOUS ? NULL : enclave_of_fd((int)r->r8), *under;
    long ret;
    if (!e) {
        lock(&g.memory_lock);
        bool over = flags & MAP_FIXED && enclave_touches(address, size, &under);
        ret = over ? enclaves_may_cut(address, size) : 0;
        if (!ret)
            ret = sys(__NR_mmap, r->rdi, r->rsi, r->rdx, flags, r->r8, r->r9);
        if (over && (unsigned long)ret < -4095ul)
            enclaves_cut(address, size, NULL);
        unlock(&g.memory_lock);
        return ret;
    }
    if ((flags & MAP_KIND) == MAP_PRIVATE) /* Linux's sgx_get_unmapped_area */
        return -EINVAL;
    if (!size || !page_aligned(r->r9) || ((flags & MAP_KIND) != MAP_SHARED && (flags & MAP_KIND) != MAP_SHARED_VALIDATE))
        return -EINVAL;
    if (flags & MAP_FIXED && !page_aligned(address))
        return -EINVAL;
    if (address + size < address)
        return -ENOMEM;
    if (!(flags & MAP_FIXED)) {
        ret = sys(__NR_mmap, address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (flags & MAP_FIXED_NOREPLACE), -1, 0);
        if ((unsigned long)ret >= -4095ul)
            return ret;
        address = (uint64_t)ret;
    }
    lock(&g.memory_lock);
    ret = flags & MAP_FIXED ? enclaves_may_cut(address, size) : 0;
    if (!ret)
        ret = memory_map(e, address, size, (int)r->rdx & 7);
    if ((unsigned long)ret < -4095ul)
        enclaves_cut(address, size, e);
    if ((unsigned long)ret >= -4095ul && !(flags & MAP_FIXED))
        sys(__NR_munmap, address, size);
    unlock(&g.memory_lock);
    return ret;
}

static long do_munmap(const struct sigcontext *r)
{
    lock(&g.memory_lock);
    long ret = enclaves_may_cut(r->rdi, page_up(r->rsi));
    if (!ret)
        ret = sys(__NR_munmap, r->rdi, r->rsi);
    if (!ret && enclaves_cut(r->rdi, page_up(r->rsi), NULL))
        enclave_sweep();
    unlock(&g.memory_lock);
    return ret;
}

static long do_mprotect(const struct sigcontext *r)
{
    struct enclave *e;
    uint64_t size = page_up(r->rsi);
    lock(&g.memory_lock);
    bool ours = page_aligned(r->rdi) && size >= r->rsi && r->rdi + size >= r->rdi && enclave_touches(r->rdi, size, &e);
    long ret = !ours ? sys(__NR_mprotect, r->rdi, r->rsi, r->rdx)
               : enclaves_touched(r->rdi, size) > 1 ? -EACCES /* two enclaves' mappings in one call */
                                                    : memory_protect(e, r->rdi, size, (int)r->rdx & 7);
    unlock(&g.memory_lock);
    return ret;
}

static long do_sigprocmask(struct thread *t, ucontext_kernel *uc)
{
    struct sigcontext *r = &uc->uc_mcontext;
    uint64_t *mask = (uint64_t *)&uc->uc_sigmask, set = 0, old = *mask | (t ? t->blocked_six : 0);
    bool on_stack;
    if (r->r10 != 8)
        return -EINVAL;
    if (r->rsi) {
        if (copy_host(&set, (void *)r->rsi, 8))
            return -EFAULT;
        uint64_t now;
        switch ((int)r->rdi) {
        case SIG_BLOCK:
            now = old | set;
            break;
        case SIG_UNBLOCK:
            now = old & ~set;
            break;
        case SIG_SETMASK:
            now = set;
            break;
        default:
            return -EINVAL;
        }
        now &= ~(BIT(SIGKILL) | BIT(SIGSTOP));
        *mask = now & ~SIX;
        if (!t && now & SIX)
            t = thread_ensure(uc, &on_stack);
        if (t) {
            t->blocked_six = now & SIX;
            uint64_t due = t->pending_six & ~t->blocked_six;
            if (due) { /* one at a time, when the handler that serves this call ends */
                int number = __builtin_ctzll(due) + 1;
                t->pending_six &= ~BIT(number);
                t->deferred_info = t->pending_info;
                atomic_store(&t->deferred, number);
            }
        }
    }
    if (r->rdx && copy_host((void *)r->rdx, &old, 8))
        return -EFAULT;
    return 0;
}

static long do_sigaltstack(struct thread *t, ucontext_kernel *uc)
{
    struct sigcontext *r = &uc->uc_mcontext;
    stack_t set, old;
    bool on_stack;
    if (!t)
        t = thread_ensure(uc, &on_stack);
    old = t->stack;
    bool active = !(old.ss_flags & SS_DISABLE) && r->rsp - (uint64_t)old.ss_sp <= old.ss_size;
    if (active)
        old.ss_flags |= SS_ONSTACK;
    if (r->rdi) {
        if (copy_host(&set, (void *)r->rdi, sizeof set))
            return -EFAULT;
        if (active)
            return -EPERM;
        int mode = set.ss_flags & ~(int)0x80000000u;
        if (mode != 0 && mode != SS_ONSTACK && mode != SS_DISABLE)
            return -EINVAL;
        if (mode == SS_DISABLE)
            set.ss_sp = NULL, set.ss_size = 0;
        else if (set.ss_size < 2048)
            return -ENOMEM;
        else
            set.ss_flags &= ~SS_ONSTACK;
        t->stack = set;
    }
    if (r->rsi && copy_host((void *)r->rsi, &old, sizeof old))
        return -EFAULT;
    return 0;
}

static long again(const struct sigcontext *r)
{
    return sys6((long)r->rax, (long)r->rdi, (long)r->rsi, (long)r->rdx, (long)r->r10, (long)r->r8, (long)r->r9);
}

/* `uc` is of a system call that was not made: RAX has its number, RIP is behind the instruction. */
void syscall_trapped(struct thread *t, siginfo_t *info, ucontext_kernel *uc)
{
    struct sigcontext *r = &uc->uc_mcontext;
    long ret;

    (void)info;
    fork_check();
    switch (r->rax) {
    case __NR_open:
        ret = open_device((const char *)r->rdi, (int)r->rsi);
        ret = ret == -1 ? again(r) : ret;
        break;
    case __NR_openat:
        ret = open_device((const char *)r->rsi, (int)r->rdx);
        ret = ret == -1 ? again(r) : ret;
        break;
    case __NR_ioctl:
        ret = device_ioctl((int)r->rdi, (uint32_t)r->rsi, (void *)r->rdx);
        break;
    case __NR_mmap:
        ret = do_mmap(r);
        break;
    case __NR_munmap:
        ret = do_munmap(r);
        break;
    case __NR_mprotect:
        ret = do_mprotect(r);
        break;
    case __NR_rt_sigaction:
        ret = signal_action((int)r->rdi, (const struct action *)r->rsi, (struct action *)r->rdx, r->r10);
        break;
    case __NR_rt_sigprocmask:
        ret = do_sigprocmask(t, uc);
        break;
    case __NR_sigaltstack:
        ret = do_sigaltstack(t, uc);
        break;
    case __NR_madvise: { /* nothing that would take an enclave's page away, or copy it to a child or a dump */
        const uint64_t harmless = 1ull << MADV_NORMAL | 1ull << MADV_RANDOM | 1ull << MADV_SEQUENTIAL | 1ull << MADV_DONTFORK | 1ull << MADV_DONTDUMP;
        struct enclave *e;
        lock(&g.memory_lock);
        ret = (r->rdx > 63 || !(harmless >> r->rdx & 1)) && enclave_touches(r->rdi, page_up(r->rsi), &e) ? -EINVAL : again(r);
        unlock(&g.memory_lock);
        break;
    }
    case __NR_mremap: {
        struct enclave *e;
        lock(&g.memory_lock);
        /* With an old size of 0 it copies the mapping. */
        ret = enclave_touches(r->rdi, page_up(r->rsi ? r->rsi : 1), &e) || (r->r10 & MREMAP_FIXED && enclave_touches(r->r8, page_up(r->rdx), &e))
                  ? -EINVAL : again(r);
        unlock(&g.memory_lock);
        break;
    }
    case __NR_pkey_mprotect: case __NR_remap_file_pages: {
        struct enclave *e;
        lock(&g.memory_lock);
        ret = enclave_touches(r->rdi, page_up(r->rsi), &e) ? -EINVAL : again(r);
        unlock(&g.memory_lock);
        break;
    }
    case __NR_exit:
        if (t)
            thread_leave(t);
        if ((uint32_t)sys(__NR_gettid, 0) == g.pid) {
            g.exit_status = (int32_t)r->rdi;
            g.leader_left = true;
        }
        epc_thread_nudge();
        ret = again(r);
        break;
    case __NR_execve: case __NR_execveat:
        ret = follow_exec(uc);
        break;
    default:
        ret = again(r);
    }
    r->rax = (uint64_t)ret;
}
