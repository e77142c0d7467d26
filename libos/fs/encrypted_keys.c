/* Keys of encrypted mounts: released by the owner (through /dev/attestation/keys/NAME), or EGETKEY's sealing keys. */
#include <asm/unistd.h>
#include <linux/fcntl.h>

#include "encrypted_file.h"

#define SGX_INVALID_CPUSVN 32 /* SDM vol. 3D, table "SGX error codes" */
#define SGX_INVALID_ISVSVN 64
#define KEYS 16

static struct { const struct boot_mount *mount; u8 key[32]; } g_released[KEYS];
static struct { bool valid; u32 kind; uint16_t isvsvn; u8 cpusvn[16], keyid[32], key[16]; } g_sealing[8];
static u32 g_next;
static u8 g_keyid[32]; /* of the files that this run seals */
static bool g_keyid_made;

static const u8 *released(const struct boot_mount *m)
{
    for (u32 i = 0; i < KEYS; i++)
        if (g_released[i].mount == m)
            return g_released[i].key;
    return NULL;
}

/* A release mount before its key: nothing in it can be looked at, so that no half of a package is imported. */
bool enc_locked(const struct boot_mount *m) { return m->kind == BOOT_MOUNT_RELEASE && !released(m); }

static u32 kind_of(const struct boot_mount *m)
{
    return m->kind == BOOT_MOUNT_RELEASE ? ENC_RELEASE : m->kind == BOOT_MOUNT_SEALED ? ENC_SEALED_MRSIGNER : ENC_SEALED_MRENCLAVE;
}

static u64 sealing_key(const struct enc_header *h, u8 key[16])
{
    for (u32 i = 0; i < 8; i++)
        if (g_sealing[i].valid && g_sealing[i].kind == h->kind && g_sealing[i].isvsvn == h->isvsvn &&
            !memcmp(g_sealing[i].cpusvn, h->cpusvn, 16) && !memcmp(g_sealing[i].keyid, h->keyid, 32)) {
            memcpy(key, g_sealing[i].key, 16);
            return 0;
        }
    u64 error = attestation_seal_key(h->kind == ENC_SEALED_MRSIGNER ? SGX_POLICY_MRSIGNER : SGX_POLICY_MRENCLAVE, h->isvsvn,
                                     h->cpusvn, h->keyid, key);
    if (error)
        return error;
    u32 i = g_next++ % 8;
    g_sealing[i].valid = true;
    g_sealing[i].kind = h->kind;
    g_sealing[i].isvsvn = h->isvsvn;
    memcpy(g_sealing[i].cpusvn, h->cpusvn, 16);
    memcpy(g_sealing[i].keyid, h->keyid, 32);
    memcpy(g_sealing[i].key, key, 16);
    return 0;
}

static long derive(const struct boot_mount *m, const struct enc_header *h, const char *path, struct enc_keys *keys)
{
    u8 key[16];
    if (m->kind == BOOT_MOUNT_RELEASE) {
        const u8 *base = released(m);
        if (!base)
            return -ENOKEY;
        enc_derive(base, 32, h->file_id, keys);
        return 0;
    }
    u64 error = sealing_key(h, key);
    if (error)
        return enc_refused(path, error == SGX_INVALID_ISVSVN   ? "it was sealed by a newer version of this program"
                                 : error == SGX_INVALID_CPUSVN ? "it was sealed under newer microcode"
                                                               : "the processor gives no key for it");
    enc_derive(key, 16, h->file_id, keys);
    memset(key, 0, sizeof key);
    return 0;
}

long enc_key_of(const struct boot_mount *m, const struct enc_header *h, const char *path, struct enc_keys *keys)
{
    if (enc_locked(m))
        return -ENOKEY;
    if (h->kind != kind_of(m))
        return enc_refused(path, "it is encrypted for another kind of mount");
    return derive(m, h, path, keys);
}

long enc_key_new(const struct boot_mount *m, struct enc_header *h, struct enc_keys *keys)
{
    memset(h, 0, sizeof *h);
    memcpy(h->magic, ENC_MAGIC, 8);
    h->version = ENC_VERSION;
    h->chunk_size = ENC_CHUNK;
    h->kind = kind_of(m);
    if (!random_bytes(h->file_id, 32))
        return -EIO;
    if (m->kind != BOOT_MOUNT_RELEASE) {
        if (!g_keyid_made && !(g_keyid_made = random_bytes(g_keyid, 32)))
            return -EIO;
        memcpy(h->keyid, g_keyid, 32);
        attestation_versions(&h->isvsvn, h->cpusvn);
    }
    return derive(m, h, "a new file", keys);
}

bool enc_key_current(const struct enc_header *h)
{
    uint16_t isvsvn;
    u8 cpusvn[16];
    if (h->kind == ENC_RELEASE)
        return true;
    attestation_versions(&isvsvn, cpusvn);
    return h->isvsvn == isvsvn && !memcmp(h->cpusvn, cpusvn, 16);
}

/* ---- /dev/attestation/keys/NAME: NAME is the mount's path without its first /, with . for each other ---- */
static const struct boot_mount *mount_named(const char *name)
{
    const struct boot_mount *m = (const void *)(BOOT_ADDRESS + boot()->mount_off);
    for (u32 i = 0; i < boot()->mount_count; i++) {
        const char *p = boot_string(m[i].path) + 1, *n = name;
        if (m[i].kind != BOOT_MOUNT_RELEASE)
            continue;
        while (*p && *n && (*p == *n || (*p == '/' && *n == '.')))
            p++, n++;
        if (!*p && !*n)
            return &m[i];
    }
    return NULL;
}

bool enc_key_node(const char *name) { return mount_named(name) != NULL; }

static int digit(u8 c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

static bool parse(const u8 *text, u64 size, u8 key[32])
{
    if (size == 32)
        return memcpy(key, text, 32) != NULL;
    if (size != 64 && !(size == 65 && text[64] == '\n'))
        return false;
    for (int i = 0; i < 32; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        key[i] = (u8)(high << 4 | low);
    }
    return true;
}

/* Set once: a second key would leave files of one run under two. */
static long key_keep(const struct boot_mount *m, const u8 key[32])
{
    for (u32 i = 0; i < KEYS; i++) {
        if (g_released[i].mount == m)
            return -EEXIST;
        if (g_released[i].mount)
            continue;
        g_released[i].mount = m;
        memcpy(g_released[i].key, key, 32);
        return 0;
    }
    return -ENOSPC;
}
static long commit_key(struct file *f)
{
    u8 key[32];
    long ret = parse(f->buffer, f->buffer_size, key) ? key_keep(f->key_mount, key) : -EINVAL;
    memset(f->buffer, 0, f->buffer_room);
    memset(key, 0, sizeof key);
    __asm__ volatile("" : : "r"(key) : "memory");
    f->buffer_size = 0;
    return ret;
}

long enc_key_open(const char *name, int flags, struct file **file)
{
    const struct boot_mount *m = mount_named(name);
    if (!m)
        return -ENOENT;
    if ((flags & O_ACCMODE) != O_WRONLY)
        return -EACCES;
    struct file *f = file_new(FILE_BUFFER, (u32)flags);
    if (!f)
        return -ENOMEM;
    if (!(f->buffer = kmalloc(128))) {
        file_drop(f);
        return -ENOMEM;
    }
    f->buffer_room = 128;
    f->commit = commit_key;
    f->key_mount = m;
    *file = f;
    return 0;
}
