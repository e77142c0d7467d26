/*
 * Attack 4, from within: a host program that starts an enclave, then reads and overwrites its memory with plain loads
 * and stores, as any code in the process might. The enclave counts its entries in its own memory.
 *
 * Usage: intruder PAGES SIGSTRUCT. PAGES holds four pages: TCS, SSA frame, code, data; they go to BASE and on. Prints
 * one JSON document, as the other attacks do. Only Linux's SGX interface is used.
 */
#include "enclave_host.h"

#include <setjmp.h>

#define JUNK 0x4a554e4b4a554e4bull

static sigjmp_buf back;

static void on_fault(int number)
{
    siglongjmp(back, number);
}

/* 0 where the enclave was entered and left by EEXIT; else what came of it, in words (an entry that faults returns 0). */
static int enter(uint64_t *counter, char *words, size_t size)
{
    struct sgx_enclave_run run = {.tcs = BASE};
    *counter = 0;
    int r = entry((unsigned long)counter, 0, 0, EENTER, 0, 0, &run);
    if (!r && run.function == EEXIT)
        return 0;
    snprintf(words, size, "%s returned %d: %s faulted, vector %u, error code %#x", "__vdso_sgx_enter_enclave", r,
             run.function == EENTER ? "EENTER" : "the enclave", run.exception_vector, run.exception_error_code);
    return 1;
}

int main(int argc, char **argv)
{
    static uint8_t pages[4 * PAGE] __attribute__((aligned(4096))), sigstruct[PAGE] __attribute__((aligned(4096)));
    const char *reads = "a load by the host part", *writes = "a store by the host part";
    uint64_t counter;
    char words[200] = "", text[400];
    if (argc != 3)
        return 2;
    if (prepare(argv[1], argv[2], pages, sigstruct))
        return 1;
    if (load(pages, sigstruct))
        return 1;
    if (enter(&counter, words, sizeof words) || counter != 1) {
        fprintf(stderr, "intruder: the enclave does not work before the attack: %s\n", words);
        return 1;
    }
    struct sigaction action = {.sa_handler = on_fault};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);

    printf("{\"attempts\": [");
    int fault = sigsetjmp(back, 1);
    if (!fault) {
        uint64_t seen = *(volatile uint64_t *)DATA;
        snprintf(text, sizeof text, "the load gave %#llx", (ull)seen);
        attempt(reads, seen == 1 ? "got" : "refused", text, 0);
    } else {
        snprintf(text, sizeof text, "the load faulted (signal %d)", fault);
        attempt(reads, "refused", text, 0);
    }
    fault = sigsetjmp(back, 1);
    if (!fault)
        *(volatile uint64_t *)DATA = JUNK;
    const char *how = fault ? "the store faulted" : "the store went without a fault";
    int first = enter(&counter, words, sizeof words);
    uint64_t after = counter;
    int again = enter(&counter, words, sizeof words);
    if (first && again)
        snprintf(text, sizeof text, "%s; the enclave is disabled, each later entry is refused: %s", how, words);
    else if (!first && after == 2)
        snprintf(text, sizeof text, "%s; it was dropped: the enclave counts on as before", how);
    else
        snprintf(text, sizeof text, "%s; the enclave computes with it: counter %#llx", how, (ull)after);
    attempt(writes, !first && after != 2 ? "got" : "refused", text, 1);
    printf("]}\n");
    return 0;
}
