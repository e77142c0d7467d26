/*
 * Encrypted files in use: chunks in clear in a few slots, the next version staged beside the file, and published by a
 * rename when it is whole. Until then the host has the version before.
 */
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "encrypted_file.h"

static struct enc_file *g_files;
static u8 g_cipher[ENC_CHUNK]; /* our own copy of what the host gave: checked and decrypted from here */
static u32 g_time;

long enc_refused(const char *path, const char *why)
{
    say("strongroom: %s is refused: %s", path, why);
    return -EACCES;
}

struct enc_file *enc_find(const char *path)
{
    for (struct enc_file *e = g_files; e; e = e->next)
        if (!e->gone && !strcmp(e->path, path))
            return e;
    return NULL;
}

static struct enc_file *enc_new(const struct boot_mount *m, const char *path)
{
    struct enc_file *e = kmalloc(sizeof *e);
    if (!e || !(e->path = kmalloc(strlen(path) + 1))) {
        kfree(e);
        return NULL;
    }
    memcpy(e->path, path, strlen(path) + 1);
    e->mount = m;
    e->refs = 1;
    e->old = e->stage = -1;
    e->next = g_files;
    g_files = e;
    return e;
}

void enc_drop(struct enc_file *e)
{
    if (e->refs == 1 && enc_commit(e, false)) /* closed amid a call that went on: nobody else commits */
        say("strongroom: %s keeps its version before: the last changes could not be written", e->path);
    if (--e->refs)
        return;
    struct enc_file **at = &g_files;
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    enc_stage_drop(e);
    if (e->old >= 0)
        host(__NR_close, e->old);
    for (u32 i = 0; i < ENC_SLOTS; i++)
        if (e->slot[i].data)
            kpages_free((u64)e->slot[i].data, ENC_CHUNK);
    kfree(e->tag);
    kfree(e->where);
    kfree(e->path);
    memset(e, 0, sizeof *e);
    kfree(e);
}

/* Room in the table for a file of `size` bytes; new chunks are holes. */
static long grow(struct enc_file *e, u64 size)
{
    u64 count = enc_count(size), had = enc_count(e->size), room = e->room;
    if (size > ENC_SIZE_MAX)
        return -EFBIG;
    if (count > room) {
        room = count + count / 2 + 8;
        struct enc_tag *tag = kmalloc(room * sizeof *tag);
        u8 *where = kmalloc(room);
        if (!tag || !where) {
            kfree(tag);
            kfree(where);
            return -ENOSPC;
        }
        memcpy(tag, e->tag, had * sizeof *tag);
        memcpy(where, e->where, had);
        kfree(e->tag);
        kfree(e->where);
        e->tag = tag;
        e->where = where;
        e->room = room;
    }
    if (count > had)
        memset(e->where + had, ENC_HOLE, count - had);
    return 0;
}

/* ---- from the host ---- */
/* The header of the open file `fd`, authentic: so its size and times are the writer's. */
long enc_head(const struct boot_mount *m, const char *path, int fd, struct enc_header *h, struct enc_keys *keys)
{
    u64 size = 0;
    long type = enc_host_type(fd, &size);
    if (type < 0)
        return type;
    if (type != S_IFREG)
        return enc_refused(path, "the host shows something that is no file");
    if (size < sizeof *h)
        return enc_refused(path, "it is shorter than any encrypted file");
    long ret = enc_host_read(fd, h, sizeof *h, 0);
    if (ret)
        return ret;
    if (!enc_sane(h))
        return enc_refused(path, "it is no encrypted file");
    if ((ret = enc_key_of(m, h, path, keys)))
        return ret;
    if (!enc_root_open(keys, h, path))
        return enc_refused(path, h->kind == ENC_RELEASE ? "it was changed or moved outside, or encrypted with another key"
                                                        : "it was changed or moved outside, or sealed on another VM or by another enclave");
    if (size != enc_total(h->size))
        return enc_refused(path, "its length was changed outside");
    if (!enc_seen_ok(path, h))
        return enc_refused(path, "the host shows an older version than the one that this run has seen");
    return 0;
}

long enc_table_load(struct enc_file *e)
{
    long ret = enc_host_read(e->old, e->tag, enc_count(e->size) * sizeof *e->tag, sizeof e->head + e->size);
    memset(e->where, ENC_OLD, enc_count(e->size));
    return !ret && !enc_table_open(&e->keys, &e->head, e->tag) ? enc_refused(e->path, "its table of tags was changed outside") : ret;
}

long enc_load(const struct boot_mount *m, const char *path, struct enc_file **found)
{
    struct enc_file *e = enc_find(path);
    if (e) {
        e->refs++;
        *found = e;
        return 0;
    }
    long fd = enc_host_open(m, path, O_RDONLY, 0), ret;
    if (fd < 0)
        return fd;
    if (!(e = enc_new(m, path))) {
        host(__NR_close, fd);
        return -ENOMEM;
    }
    e->old = (int)fd;
    ret = enc_head(m, path, e->old, &e->head, &e->keys);
    if (!ret)
        ret = grow(e, e->head.size);
    if (!ret) {
        e->size = e->head.size;
        e->mtime_ns = e->head.mtime_ns;
        ret = enc_table_load(e);
    }
    if (ret) {
        enc_drop(e);
        return ret;
    }
    enc_seen(path, &e->head);
    *found = e;
    return 0;
}

static long chunk_load(struct enc_file *e, u64 chunk, u8 *to)
{
    u32 length = enc_length(e->size, chunk);
    if (e->where[chunk] == ENC_HOLE) {
        memset(to, 0, length);
        return 0;
    }
    bool old = e->where[chunk] == ENC_OLD;
    long ret = enc_host_read(old ? e->old : e->stage, g_cipher, length, sizeof e->head + chunk * ENC_CHUNK);
    if (ret)
        return ret;
    if (enc_chunk_open(old ? &e->keys : &e->stage_keys, chunk, &e->tag[chunk], g_cipher, to, length))
        return 0;
    say("strongroom: %s cannot be read: the host changed it", e->path);
    return -EIO;
}

/* ---- to the next version ---- */
/* The staging file, and the keys: the file's own, but new ones after a change of versions (TCB recovery). */
static long stage(struct enc_file *e)
{
    if (e->stage >= 0)
        return 0;
    if (e->old >= 0 && enc_key_current(&e->head)) {
        e->stage_head = e->head;
        e->stage_keys = e->keys;
    } else {
        long ret = enc_key_new(e->mount, &e->stage_head, &e->stage_keys);
        if (ret)
            return ret;
    }
    return enc_stage_open(e);
}

static bool same_keys(const struct enc_file *e) { return e->old >= 0 && !memcmp(e->head.file_id, e->stage_head.file_id, 32); }

static long chunk_stage(struct enc_file *e, u64 chunk, const u8 *from)
{
    struct enc_tag tag;
    u32 length = enc_length(e->size, chunk);
    long ret = stage(e);
    if (!ret && !random_bytes(tag.nonce, sizeof tag.nonce))
        ret = -EIO;
    if (ret)
        return ret;
    enc_chunk_seal(&e->stage_keys, chunk, &tag, from, g_cipher, length);
    if ((ret = enc_host_write(e->stage, g_cipher, length, sizeof e->head + chunk * ENC_CHUNK)))
        return ret;
    e->tag[chunk] = tag;
    e->where[chunk] = ENC_STAGED;
    return 0;
}

/* A slot that holds the chunk in clear; bytes beyond its length are zero. */
static long slot_of(struct enc_file *e, u64 chunk, bool load, u32 *slot)
{
    u32 best = 0;
    for (u32 i = 0; i < ENC_SLOTS; i++) {
        if (e->slot[i].used && e->slot[i].chunk == chunk) {
            e->slot[i].time = ++g_time;
            *slot = i;
            return 0;
        }
        if (e->slot[best].used && (!e->slot[i].used || e->slot[i].time < e->slot[best].time))
            best = i;
    }
    if (e->slot[best].used && e->slot[best].dirty) {
        long ret = chunk_stage(e, e->slot[best].chunk, e->slot[best].data);
        if (ret)
            return ret;
    }
    e->slot[best].used = e->slot[best].dirty = false;
    if (!e->slot[best].data && !(e->slot[best].data = (u8 *)kpages(ENC_CHUNK)))
        return -ENOMEM;
    memset(e->slot[best].data, 0, ENC_CHUNK);
    if (load) {
        long ret = chunk_load(e, chunk, e->slot[best].data);
        if (ret)
            return ret;
    }
    e->slot[best].used = true;
    e->slot[best].chunk = chunk;
    e->slot[best].time = ++g_time;
    *slot = best;
    return 0;
}

long enc_read(struct enc_file *e, void *to, u64 size, u64 offset)
{
    if (offset >= e->size)
        return 0;
    size = min64(size, e->size - offset);
    for (u64 done = 0; done < size;) {
        u64 chunk = (offset + done) / ENC_CHUNK, skip = (offset + done) % ENC_CHUNK;
        u64 length = enc_length(e->size, chunk), want = min64(length - skip, size - done);
        bool cached = false;
        for (u32 i = 0; i < ENC_SLOTS; i++)
            cached |= e->slot[i].used && e->slot[i].chunk == chunk;
        u32 slot = 0;
        long ret = cached || want < length ? slot_of(e, chunk, true, &slot) : chunk_load(e, chunk, (u8 *)to + done);
        if (ret)
            return done ? (long)done : ret;
        if (cached || want < length)
            memcpy((u8 *)to + done, e->slot[slot].data + skip, want);
        done += want;
    }
    return (long)size;
}

/* The last chunk in a dirty slot: its length is about to change, and with it its tag. */
static long last_chunk_dirty(struct enc_file *e)
{
    u32 slot;
    if (!(e->size % ENC_CHUNK))
        return 0;
    long ret = slot_of(e, e->size / ENC_CHUNK, true, &slot);
    if (!ret)
        e->slot[slot].dirty = true;
    return ret;
}

static void touched(struct enc_file *e)
{
    e->dirty = true;
    e->mtime_ns = now_ns(0);
}

long enc_resize(struct enc_file *e, u64 size)
{
    long ret = 0;
    if (size == e->size)
        return 0;
    if (size > e->size) {
        if (!(ret = grow(e, size)) && !(ret = last_chunk_dirty(e)))
            e->size = size;
    } else {
        u64 keep = enc_count(size);
        u32 slot = 0;
        if (size % ENC_CHUNK) {
            if ((ret = slot_of(e, size / ENC_CHUNK, true, &slot)))
                return ret;
            memset(e->slot[slot].data + size % ENC_CHUNK, 0, ENC_CHUNK - size % ENC_CHUNK);
            e->slot[slot].dirty = true;
        }
        for (u32 i = 0; i < ENC_SLOTS; i++)
            if (e->slot[i].used && e->slot[i].chunk >= keep)
                e->slot[i].used = e->slot[i].dirty = false;
        e->size = size;
    }
    if (!ret)
        touched(e);
    return ret;
}

long enc_write(struct enc_file *e, const void *from, u64 size, u64 offset)
{
    u64 done = 0;
    long ret = 0;
    if (offset + size < offset || offset + size > ENC_SIZE_MAX)
        return -EFBIG;
    if (size && offset > e->size && (ret = enc_resize(e, offset)))
        return ret;
    while (done < size) {
        u64 at = offset + done, chunk = at / ENC_CHUNK, skip = at % ENC_CHUNK, part = min64(ENC_CHUNK - skip, size - done);
        u64 end = at + part > e->size ? at + part : e->size;
        u32 slot;
        /* Grow first: only the chunk that is written may be the last, shorter one. */
        if (end > e->size && ((ret = grow(e, end)) || (e->size / ENC_CHUNK != chunk && (ret = last_chunk_dirty(e)))))
            break;
        bool there = chunk < enc_count(e->size);
        if ((ret = slot_of(e, chunk, there && !(skip == 0 && at + part >= e->size), &slot)))
            break;
        memcpy(e->slot[slot].data + skip, (const u8 *)from + done, part);
        e->slot[slot].dirty = true;
        e->size = end;
        done += part;
    }
    if (done)
        touched(e);
    return done ? (long)done : ret;
}

/* Makes what is here the host's version: staged whole, then renamed. On an error all stays here, to be tried again. */
long enc_commit(struct enc_file *e, bool durable)
{
    if (e->gone)
        return 0;
    if (!e->dirty)
        return durable ? enc_durable(e) : 0;
    u64 count = enc_count(e->size), table_size = count * sizeof(struct enc_tag), data = sizeof e->head;
    long ret = stage(e);
    for (u32 i = 0; i < ENC_SLOTS && !ret; i++)
        if (e->slot[i].used && e->slot[i].dirty && !(ret = chunk_stage(e, e->slot[i].chunk, e->slot[i].data)))
            e->slot[i].dirty = false;
    u8 *clear = NULL;
    for (u64 chunk = 0; chunk < count && !ret;) {
        u64 run = 0;
        while (chunk + run < count && e->where[chunk + run] == ENC_OLD && same_keys(e))
            run++;
        if (run) {
            ret = enc_host_copy(e->old, e->stage, data + chunk * ENC_CHUNK, min64(run * ENC_CHUNK, e->size - chunk * ENC_CHUNK));
            chunk += run;
            continue;
        }
        if (e->where[chunk] != ENC_STAGED) {
            if (!clear && !(clear = (u8 *)kpages(ENC_CHUNK)))
                ret = -ENOMEM;
            if (!ret && !(ret = chunk_load(e, chunk, clear)))
                ret = chunk_stage(e, chunk, clear);
        }
        chunk++;
    }
    if (clear)
        kpages_free((u64)clear, ENC_CHUNK);
    struct enc_header h = e->stage_head;
    struct enc_tag *table = ret ? NULL : kmalloc(table_size);
    if (!ret && !table)
        ret = -ENOMEM;
    if (!ret) {
        u64 now = now_ns(0), before = enc_seen_generation(e->path);
        if (before < e->head.generation)
            before = e->head.generation;
        h.size = e->size;
        h.mtime_ns = e->mtime_ns;
        h.generation = before < now ? now : before + 1;
        memcpy(table, e->tag, table_size);
        if (!random_bytes(h.table_nonce, 12) || !random_bytes(h.root_nonce, 12))
            ret = -EIO;
    }
    if (!ret) {
        enc_table_seal(&e->stage_keys, &h, table);
        enc_root_seal(&e->stage_keys, &h, e->path);
        ret = bounded(host(__NR_ftruncate, e->stage, enc_total(e->size)), 0);
    }
    if (!ret)
        ret = enc_host_write(e->stage, table, table_size, data + e->size);
    if (!ret)
        ret = enc_host_write(e->stage, &h, sizeof h, 0);
    kfree(table);
    if (!ret)
        ret = enc_stage_publish(e, durable);
    if (ret)
        return ret;
    if (e->old >= 0)
        host(__NR_close, e->old);
    e->old = e->stage;
    e->stage = -1;
    e->head = h;
    e->keys = e->stage_keys;
    e->dirty = false;
    memset(e->where, ENC_OLD, count);
    enc_seen(e->path, &h);
    return durable ? enc_durable(e) : 0;
}

/* A new file: on the host at once, empty, as its name is. */
long enc_create(const struct boot_mount *m, const char *path, struct enc_file **found)
{
    struct enc_file *e = enc_new(m, path);
    if (!e)
        return -ENOMEM;
    touched(e);
    long ret = grow(e, 1);
    if (!ret)
        ret = enc_commit(e, false);
    if (ret) {
        e->dirty = false;
        enc_drop(e);
        return ret;
    }
    *found = e;
    return 0;
}

/* Before the last descriptor goes: the error is close()'s, and what could not be written is given up. */
long enc_close(struct enc_file *e)
{
    long ret = enc_commit(e, false);
    if (e->refs == 1)
        e->dirty = false;
    return ret;
}

void enc_set_mtime(struct enc_file *e, u64 mtime_ns)
{
    e->dirty = true;
    e->mtime_ns = mtime_ns;
}

u64 enc_size(const struct enc_file *e) { return e->size; }

long enc_commit_all(const struct boot_mount *m, bool durable)
{
    long first = 0;
    for (struct enc_file *e = g_files; e; e = e->next) {
        long ret = !m || e->mount == m ? enc_commit(e, durable) : 0;
        if (ret && !durable)
            say("strongroom: %s keeps its version before: the last changes could not be written", e->path);
        first = first ? first : ret;
    }
    return first;
}
