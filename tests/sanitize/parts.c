/*
 * The LibOS's pure parts in an ordinary program, for the address and undefined-behaviour sanitizers: paths, the pack's
 * reader, formatting, SHA-256. Lines on standard input: a letter and words in hex; an answer a line. argv[1]: a files.pack.
 */
#define _ISOC11_SOURCE /* no more of libc's names than C's own: the kernel's headers have the others */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *mmap(void *at, size_t size, int prot, int flags, int fd, long offset);
size_t strnlen(const char *text, size_t most);
#undef __GLIBC__ /* the kernel's stat.h leaves its numbers to libc otherwise */

#define say print_say
#include "../../libos/lib/print.c"
#undef say
#include "../../libos/lib/sha256.c"
#include "../../libos/fs/pack.c"
#include "../../libos/fs/path.c"

/* What these parts ask of the rest. */
static struct boot_info *g_boot;
const struct boot_info *boot(void) { return g_boot; }
const char *boot_string(u32 offset) { return (const char *)(BOOT_ADDRESS + offset); }
bool outside(u64 address, u64 size) { return address + size >= address; }
u64 kpages(u64 size) { return (u64)malloc(size); }
void kpages_free(u64 address, u64 size) { (void)size, free((void *)address); }
void *kmalloc(size_t size) { return calloc(1, size ? size : 1); }
void kfree(void *p) { free(p); }
struct file *file_get(int fd) { (void)fd; return NULL; }
const char *node_link(const char *path) { (void)path; return NULL; }
struct inode *tmp_find(const char *path, bool *is_mount, struct inode **parent, const char **last)
{
    (void)path, (void)is_mount, (void)parent, (void)last;
    return NULL;
}
long node_stat(const char *path, struct stat_k *st) { (void)path, (void)st; return -ENOENT; }
void say(const char *f, ...) { (void)f; }
void cannot_start(const char *what) { puts(what); exit(3); }

static size_t unhex(const char *text, unsigned char *to, size_t room)
{
    size_t n = 0;
    for (; n < room && text && sscanf(text + 2 * n, "%2hhx", to + n) == 1; n++)
        ;
    return n;
}

static void show(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf("%02x", p[i]);
    puts("");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static char line[1 << 20];
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!file || fseek(file, 0, SEEK_END))
        return 2;
    long size = ftell(file);
    u8 *pack = malloc((size_t)size + !size), *bytes = malloc(sizeof line);
    rewind(file);
    if (size < 64 || fread(pack, 1, (size_t)size, file) != (size_t)size)
        return 2;
    fclose(file);
    g_boot = mmap((void *)BOOT_ADDRESS, PAGE, 3 /* READ WRITE */, 0x32 /* PRIVATE FIXED ANONYMOUS */, -1, 0);
    if (g_boot != (void *)BOOT_ADDRESS)
        return 2;
    memcpy(&g_boot->pack_index_size, pack + 48, 8);
    sha256(pack, g_boot->pack_index_size, g_boot->pack_index_sha256);
    pack_start((u64)pack, (u64)size);
    while (fgets(line, sizeof line, stdin)) {
        char *words[3] = {strtok(line, " \n"), strtok(NULL, " \n"), strtok(NULL, " \n")};
        char *last = strtok(NULL, " \n");
        size_t n = unhex(words[1], bytes, sizeof line - 1);
        char *given = malloc(n + 1), *to = malloc(PATH_ROOM); /* sizes to the byte, for the sanitizer to see */
        memcpy(given, bytes, n);
        given[n] = 0;
        switch (words[0] ? words[0][0] : 0) {
        case 'a': { /* path_absolute */
            long bad = n < PATH_ROOM ? path_absolute(AT_FDCWD, given, to) : -ENAMETOOLONG;
            bad ? (void)printf("%ld\n", bad) : show((u8 *)to, strlen(to));
            break;
        }
        case 'f': { /* fs_follow, whose buffer is PATH_ROOM */
            memcpy(to, given, n < PATH_ROOM ? n + 1 : 0);
            long bad = n < PATH_ROOM ? fs_follow(to, true) : -ENAMETOOLONG;
            bad ? (void)printf("%ld\n", bad) : show((u8 *)to, strlen(to));
            break;
        }
        case 'r': { /* read from a file of the pack: path, size, offset */
            const struct pack_entry *e = pack_find(given);
            u64 want = strtoull(words[2], NULL, 10), offset = strtoull(last, NULL, 10);
            u8 *out = malloc(want + !want);
            long got = e ? pack_read(e, out, want, offset) : -ENOENT;
            got < 0 ? (void)printf("%ld\n", got) : show(out, (size_t)got);
            free(out);
            break;
        }
        case 'l': { /* children of a folder */
            u32 index = 0, count = 0, length;
            const struct pack_entry *e;
            const char *name;
            while (pack_next_child(given, &index, &e, &name, &length))
                count += length != 0;
            printf("%u\n", count);
            break;
        }
        case 'x': /* the host changes its mapping of the pack */
            pack[strtoull(words[1], NULL, 10) % (u64)size] ^= (u8)strtoul(words[2], NULL, 10);
            memset(g_cache, 0, sizeof g_cache);
            puts("done");
            break;
        case 's': {
            u8 digest[32], *exact = malloc(n + !n);
            memcpy(exact, bytes, n);
            sha256(exact, n, digest);
            show(digest, 32);
            free(exact);
            break;
        }
        case 'p': { /* formatting into so many bytes */
            size_t room = strtoull(words[2], NULL, 10);
            char *out = malloc(room + !room);
            int k = format(out, room, "%s|%d|%x|%08lx|%lu", given, (int)n - 5, (u32)n, (u64)n, ~(u64)n);
            printf("%d\n", k);
            free(out);
            break;
        }
        default:
            puts("?");
        }
        fflush(stdout);
        free(given);
        free(to);
    }
    return 0;
}
