/* Preloaded under a program (LD_PRELOAD): writes down, in order, what the
 * program does to the files of one directory, and can make syncs fail or leave
 * them out. Only the power-cut tests use it, on programs that they start.
 *
 * POWERCUT_DIR     the directory; everything else passes untouched
 * POWERCUT_LOG     where to write the record; without it nothing is recorded
 * POWERCUT_ACKS    what is written to this file is recorded as an announcement
 * POWERCUT_UNSYNC  fsyncs of files whose path ends so are left out (control)
 * POWERCUT_FAIL    CALL:AFTER:TIMES:ERRNO, with CALL fsync or pwrite: after so
 *                  many calls so many fail
 *
 * Safety: one lock is held around each write and its record, so the record's
 * order is the order of the calls; an fsync is recorded before and after, since
 * writes may happen while it runs. No handler allocates except for the record's
 * own buffer, none is entered twice by one thread (the record is written by the
 * real calls), and all state is set up before main.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, RENAME, UNLINK, MKDIR, SYNC_BEGIN, SYNC_END, ANNOUNCE };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int record_fd = -1;
static char dir[PATH_MAX], acks[PATH_MAX];
static size_t dir_len;
static const char *unsync;
static char fail_call[16];
static long fail_after, fail_times, fail_errno, fail_count;

#define REAL(type, name, ...)                      \
    static type (*real)(__VA_ARGS__);              \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static ssize_t real_write(int fd, const void *bytes, size_t len) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return real(fd, bytes, len);
}

static int real_open(const char *path, int flags, mode_t mode) {
    REAL(int, "open64", const char *, int, ...);
    return real(path, flags, mode);
}

__attribute__((constructor)) static void set_up(void) {
    const char *d = getenv("POWERCUT_DIR"), *l = getenv("POWERCUT_LOG");
    const char *a = getenv("POWERCUT_ACKS"), *f = getenv("POWERCUT_FAIL");
    unsync = getenv("POWERCUT_UNSYNC");
    if (f) sscanf(f, "%15[^:]:%ld:%ld:%ld", fail_call, &fail_after, &fail_times, &fail_errno);
    if (!d) return;
    snprintf(dir, sizeof dir, "%s", d);
    dir_len = strlen(dir);
    if (a) snprintf(acks, sizeof acks, "%s", a);
    if (l) record_fd = real_open(l, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* Whether this call is one that is to fail. */
static int fails(const char *call) {
    if (strcmp(fail_call, call)) return 0;
    long n = __sync_add_and_fetch(&fail_count, 1);
    if (n <= fail_after || n > fail_after + fail_times) return 0;
    errno = (int)fail_errno;
    return 1;
}

/* The part of an absolute path below the directory, or NULL. */
static const char *below(const char *path) {
    if (!dir_len || strncmp(path, dir, dir_len)) return NULL;
    if (path[dir_len] == 0) return path + dir_len;
    return path[dir_len] == '/' ? path + dir_len + 1 : NULL;
}

static const char *path_of(int fd, char *out) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, out, PATH_MAX - 1);
    if (len < 0) return NULL;
    out[len] = 0;
    return below(out);
}

/* kind, inode, a, b, length, payload: little-endian, as the reader expects. */
static void record(uint8_t kind, uint64_t inode, uint64_t a, const void *bytes, uint32_t len) {
    if (record_fd < 0) return;
    static char *buffer;
    static size_t room;
    size_t need = 21 + (size_t)len;
    if (need > room) {
        buffer = realloc(buffer, need);
        if (!buffer) abort();
        room = need;
    }
    buffer[0] = (char)kind;
    memcpy(buffer + 1, &inode, 8);
    memcpy(buffer + 9, &a, 8);
    memcpy(buffer + 17, &len, 4);
    if (len) memcpy(buffer + 21, bytes, len);
    for (size_t done = 0; done < need;) {
        ssize_t n = real_write(record_fd, buffer + done, need - done);
        if (n <= 0) abort();
        done += (size_t)n;
    }
}

static void record_path(uint8_t kind, uint64_t inode, const char *path) {
    record(kind, inode, 0, path, (uint32_t)strlen(path));
}

static uint64_t inode_of(int fd) {
    struct stat s;
    return fstat(fd, &s) ? 0 : s.st_ino;
}

static int opened(const char *path, int flags, mode_t mode) {
    const char *name = below(path);
    if (!name) return real_open(path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat s;
    int was_there = !stat(path, &s);
    int fd = real_open(path, flags, mode);
    if (fd >= 0 && !was_there) record_path(CREATE, inode_of(fd), name);
    if (fd >= 0 && was_there && (flags & O_TRUNC)) record(TRUNCATE, inode_of(fd), 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(name)                             \
    int name(const char *path, int flags, ...) { \
        va_list rest;                          \
        va_start(rest, flags);                 \
        mode_t mode = va_arg(rest, mode_t);    \
        va_end(rest);                          \
        return opened(path, flags, mode);      \
    }
OPEN(open)
OPEN(open64)

static void written(int fd, off_t offset, const void *bytes, ssize_t len) {
    if (len > 0) record(WRITE, inode_of(fd), (uint64_t)offset, bytes, (uint32_t)len);
}

ssize_t write(int fd, const void *bytes, size_t len) {
    char path[PATH_MAX];
    if (!dir_len) return real_write(fd, bytes, len);
    int ours = path_of(fd, path) != NULL, announces = !ours && *acks && !strcmp(path, acks);
    if (!ours && !announces) return real_write(fd, bytes, len);
    pthread_mutex_lock(&lock);
    struct stat s;
    off_t offset = (fcntl(fd, F_GETFL) & O_APPEND) && !fstat(fd, &s) ? s.st_size : lseek(fd, 0, SEEK_CUR);
    ssize_t n = real_write(fd, bytes, len);
    if (ours) written(fd, offset, bytes, n);
    if (announces && n > 0) record(ANNOUNCE, 0, 0, bytes, (uint32_t)n);
    pthread_mutex_unlock(&lock);
    return n;
}

#define PWRITE(name)                                                           \
    ssize_t name(int fd, const void *bytes, size_t len, off_t offset) {        \
        REAL(ssize_t, #name, int, const void *, size_t, off_t);                \
        char path[PATH_MAX];                                                   \
        if (!dir_len || !path_of(fd, path)) return real(fd, bytes, len, offset); \
        if (fails("pwrite")) return -1;                                        \
        pthread_mutex_lock(&lock);                                             \
        ssize_t n = real(fd, bytes, len, offset);                              \
        written(fd, offset, bytes, n);                                         \
        pthread_mutex_unlock(&lock);                                           \
        return n;                                                              \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

/* What the recorder does not know must not go by unseen. */
#define UNKNOWN(type, name, call, ...)                   \
    type name(__VA_ARGS__) {                             \
        char path[PATH_MAX];                             \
        if (dir_len && path_of(fd, path)) abort();       \
        call                                             \
    }
UNKNOWN(ssize_t, writev, REAL(ssize_t, "writev", int, const struct iovec *, int); return real(fd, v, n);,
        int fd, const struct iovec *v, int n)
UNKNOWN(int, fallocate64, REAL(int, "fallocate64", int, int, off_t, off_t); return real(fd, mode, at, len);,
        int fd, int mode, off_t at, off_t len)

#define FTRUNCATE(name)                                          \
    int name(int fd, off_t len) {                                \
        REAL(int, #name, int, off_t);                            \
        char path[PATH_MAX];                                     \
        if (!dir_len || !path_of(fd, path)) return real(fd, len); \
        pthread_mutex_lock(&lock);                               \
        int result = real(fd, len);                              \
        if (!result) record(TRUNCATE, inode_of(fd), (uint64_t)len, NULL, 0); \
        pthread_mutex_unlock(&lock);                             \
        return result;                                           \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

/* A directory is named by its path, a file by its inode (the path may be gone). */
#define SYNC(name)                                                          \
    int name(int fd) {                                                      \
        REAL(int, #name, int);                                              \
        char path[PATH_MAX];                                                \
        const char *rel = dir_len ? path_of(fd, path) : NULL;               \
        if (!rel) return real(fd);                                          \
        if (fails("fsync")) return -1;                                      \
        size_t n = strlen(rel), u = unsync ? strlen(unsync) : 0;            \
        if (u && n >= u && !strcmp(rel + n - u, unsync)) return 0;          \
        struct stat s;                                                      \
        int is_dir = !fstat(fd, &s) && S_ISDIR(s.st_mode);                  \
        uint64_t inode = is_dir ? 0 : inode_of(fd);                         \
        uint32_t len = is_dir ? (uint32_t)n : 0;                            \
        pthread_mutex_lock(&lock);                                          \
        record(SYNC_BEGIN, inode, (uint64_t)pthread_self(), rel, len);      \
        pthread_mutex_unlock(&lock);                                        \
        int result = real(fd);                                              \
        pthread_mutex_lock(&lock);                                          \
        if (!result) record(SYNC_END, inode, (uint64_t)pthread_self(), rel, len); \
        pthread_mutex_unlock(&lock);                                        \
        return result;                                                      \
    }
SYNC(fsync)
SYNC(fdatasync)

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    const char *a = below(from), *b = below(to);
    if (!a || !b) return real(from, to);
    char both[2 * PATH_MAX];
    int len = snprintf(both, sizeof both, "%s%c%s", a, 0, b);
    pthread_mutex_lock(&lock);
    int result = real(from, to);
    if (!result) record(RENAME, 0, 0, both, (uint32_t)len);
    pthread_mutex_unlock(&lock);
    return result;
}

static int recorded(int result, uint8_t kind, const char *path) {
    if (!result) record_path(kind, 0, path);
    return result;
}

#define REMOVE(name)                                       \
    int name(const char *path) {                           \
        REAL(int, #name, const char *);                    \
        const char *rel = below(path);                     \
        if (!rel) return real(path);                       \
        pthread_mutex_lock(&lock);                         \
        int result = recorded(real(path), UNLINK, rel);    \
        pthread_mutex_unlock(&lock);                       \
        return result;                                     \
    }
REMOVE(unlink)
REMOVE(rmdir)

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    const char *rel = below(path);
    if (!rel) return real(path, mode);
    pthread_mutex_lock(&lock);
    int result = recorded(real(path, mode), MKDIR, rel);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlinkat(int at, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    char whole[PATH_MAX * 2], base[PATH_MAX];
    const char *rel = NULL;
    if (path[0] == '/') rel = below(path);
    else if (dir_len && path_of(at, base)) {
        snprintf(whole, sizeof whole, "%s/%s", base, path);
        rel = below(whole);
    }
    if (!rel) return real(at, path, flags);
    pthread_mutex_lock(&lock);
    int result = recorded(real(at, path, flags), UNLINK, rel);
    pthread_mutex_unlock(&lock);
    return result;
}
