/* Preloaded into a process, records what it does to the files below one directory, from
 * trace_begin() to trace_end(), into a file of events.
 *
 * Every call of libc that changes a file, a name or the open descriptors does its work and writes
 * its event under one mutex, so that the events have the order of their effects. A sync runs outside
 * of it, and tells how many events there were when it began. What is stored through a shared
 * mapping is no call; it is noticed at the next event, by comparing with a copy.
 *
 * Only what succeeded is recorded, with the part that did. support/preload.py reads the events.
 *
 * After die_after_meta() the process is killed inside its next commit to LMDB.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if !defined(__linux__) || !defined(__LP64__)
#error "written for 64-bit Linux, where off_t and off64_t are one"
#endif

#define FDS_MAX 65536
#define REGIONS_MAX 64
#define PAGE 4096

/* The order and widths are those of _EVENT in support/preload.py. */
struct event {
    uint64_t number; /* counts up */
    uint64_t covers; /* of a sync: events before it began */
    int64_t a, b;
    int32_t fd;
    uint32_t kind, text_size, data_size;
};

struct region { /* a file mapped to be written through memory */
    char *start, *copy;
    size_t size;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char root[PATH_MAX];
static size_t root_size;
static uint64_t count;
static unsigned char tracked[FDS_MAX];
static struct region regions[REGIONS_MAX];
static int is_doomed; /* killed after the next write to a descriptor that is synchronous */

static void die(const char *why) {
    fprintf(stderr, "preload: %s\n", why);
    abort();
}

/* -- events ----------------------------------------------------------------------------------- */

static void append(struct event event, const char *text, const void *data) {
    event.number = count++;
    event.text_size = text ? strlen(text) : 0;
    struct iovec parts[] = {
        {&event, sizeof event}, {(void *)text, event.text_size}, {(void *)data, event.data_size}};
    ssize_t size = sizeof event + event.text_size + event.data_size;
    if (syscall(SYS_writev, log_fd, parts, 3) != size) die("the log cannot be written");
}

/* What memory says by now, page by page. */
static void compare_regions(void) {
    for (int i = 0; i < REGIONS_MAX; i++) {
        struct region *region = &regions[i];
        for (size_t at = 0; at < region->size; at += PAGE) {
            size_t size = region->size - at < PAGE ? region->size - at : PAGE;
            char *old = region->copy + at;
            if (!memcmp(old, region->start + at, size)) continue;
            char page[PAGE]; /* once, since others may be storing */
            memcpy(page, region->start + at, size);
            size_t first = 0, end = size;
            while (first < end && page[first] == old[first]) first++;
            while (end > first && page[end - 1] == old[end - 1]) end--;
            memcpy(old, page, size);
            struct event event = {.kind = 'm', .a = at + first, .b = i, .data_size = end - first};
            if (end > first) append(event, NULL, page + first);
        }
    }
}

static void record(struct event event, const char *text, const void *data) {
    if (log_fd < 0) return;
    compare_regions();
    append(event, text, data);
}

static void enter(void) { pthread_mutex_lock(&mutex); }

static long leave(long result) {
    int error = errno;
    pthread_mutex_unlock(&mutex);
    errno = error;
    return result;
}

static int is_tracked(int fd) { return fd >= 0 && fd < FDS_MAX && tracked[fd]; }

/* -- paths ------------------------------------------------------------------------------------ */

static int is_below(const char *path) {
    return log_fd >= 0 && !strncmp(path, root, root_size) &&
           (path[root_size] == '/' || !path[root_size]);
}

/* Absolute; the engine's paths have no links and no dots. Whether it is below the root. */
static int absolute(int at, const char *path, char out[PATH_MAX]) {
    if (log_fd < 0 || !path) return 0;
    char from[64], base[PATH_MAX];
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else {
        snprintf(from, sizeof from, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, from, base, sizeof base - 1);
        if (size < 0) return 0;
        base[size] = 0;
        if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) die("a path is too long");
    }
    return is_below(out);
}

/* -- descriptors ------------------------------------------------------------------------------ */

static int open_at(int at, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    struct stat found;
    if (!absolute(at, path, full)) return syscall(SYS_openat, at, path, flags, mode);
    enter();
    int is_new = flags & O_CREAT && fstatat(AT_FDCWD, full, &found, 0) != 0;
    int fd = syscall(SYS_openat, at, path, flags, mode);
    if (fd >= FDS_MAX) die("too many descriptors");
    if (fd >= 0) {
        tracked[fd] = 1;
        record((struct event){.kind = 'o', .fd = fd, .a = flags, .b = is_new}, full, NULL);
    }
    return leave(fd);
}

#define MODE_OF(flags)                                    \
    mode_t mode = 0;                                      \
    if ((flags) & (O_CREAT | O_TMPFILE) & ~O_DIRECTORY) { \
        va_list rest;                                     \
        va_start(rest, flags);                            \
        mode = va_arg(rest, mode_t);                      \
        va_end(rest);                                     \
    }

int open(const char *path, int flags, ...) {
    MODE_OF(flags)
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    MODE_OF(flags)
    return open_at(at, path, flags, mode);
}

int creat(const char *path, mode_t mode) {
    return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __openat_2(int at, const char *path, int flags) { return open_at(at, path, flags, 0); }

int close(int fd) {
    if (!is_tracked(fd)) return syscall(SYS_close, fd);
    enter();
    tracked[fd] = 0;
    record((struct event){.kind = 'c', .fd = fd}, NULL, NULL);
    return leave(syscall(SYS_close, fd));
}

static int duplicated(int fd, int copy) {
    if (copy >= FDS_MAX) die("too many descriptors");
    if (copy >= 0 && copy != fd) {
        if (tracked[copy]) record((struct event){.kind = 'c', .fd = copy}, NULL, NULL);
        tracked[copy] = is_tracked(fd);
        if (tracked[copy]) record((struct event){.kind = 'd', .fd = fd, .a = copy}, NULL, NULL);
    }
    return leave(copy);
}

int dup(int fd) { return enter(), duplicated(fd, syscall(SYS_dup, fd)); }
int dup3(int fd, int to, int flags) {
    return enter(), duplicated(fd, syscall(SYS_dup3, fd, to, flags));
}
int dup2(int fd, int to) { return fd == to ? fcntl(fd, F_GETFD) < 0 ? -1 : fd : dup3(fd, to, 0); }

int fcntl(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (command != F_DUPFD && command != F_DUPFD_CLOEXEC)
        return syscall(SYS_fcntl, fd, command, argument);
    return enter(), duplicated(fd, syscall(SYS_fcntl, fd, command, argument));
}

/* -- content ---------------------------------------------------------------------------------- */

/* Written just now, from `parts`, at `offset` or, if that is negative, up to the file's position. */
static ssize_t written(int fd, const struct iovec *parts, ssize_t size, off_t offset) {
    if (size > 0) {
        if (offset < 0) offset = syscall(SYS_lseek, fd, 0, SEEK_CUR) - size;
        char *data = malloc(size);
        if (!data) die("no memory");
        for (ssize_t at = 0, part; at < size; at += part, parts++) {
            part = size - at < (ssize_t)parts->iov_len ? size - at : (ssize_t)parts->iov_len;
            memcpy(data + at, parts->iov_base, part);
        }
        record((struct event){.kind = 'w', .fd = fd, .a = offset, .data_size = size}, NULL, data);
        free(data);
    }
    return leave(size);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    if (!is_tracked(fd)) return syscall(SYS_writev, fd, parts, n);
    return enter(), written(fd, parts, syscall(SYS_writev, fd, parts, n), -1);
}

ssize_t pwritev2(int fd, const struct iovec *parts, int n, off_t offset, int flags) {
    if (!is_tracked(fd)) return syscall(SYS_pwritev2, fd, parts, n, offset, 0, flags);
    if (flags) die("flags of pwritev2 are not recorded");
    return enter(), written(fd, parts, syscall(SYS_pwritev, fd, parts, n, offset, 0), offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t offset) {
    return pwritev2(fd, parts, n, offset, 0);
}

ssize_t write(int fd, const void *data, size_t size) {
    struct iovec part = {(void *)data, size};
    if (!is_tracked(fd)) return syscall(SYS_write, fd, data, size);
    return enter(), written(fd, &part, syscall(SYS_write, fd, data, size), -1);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    struct iovec part = {(void *)data, size};
    if (!is_tracked(fd)) {
        long result = syscall(SYS_pwrite64, fd, data, size, offset);
        if (is_doomed && fcntl(fd, F_GETFL) & O_DSYNC) kill(getpid(), SIGKILL);
        return result;
    }
    return enter(), written(fd, &part, syscall(SYS_pwrite64, fd, data, size, offset), offset);
}

int ftruncate(int fd, off_t size) {
    if (!is_tracked(fd)) return syscall(SYS_ftruncate, fd, size);
    enter();
    int result = syscall(SYS_ftruncate, fd, size);
    if (!result) record((struct event){.kind = 't', .fd = fd, .a = size}, NULL, NULL);
    return leave(result);
}

int truncate(const char *path, off_t size) {
    char full[PATH_MAX];
    if (!absolute(AT_FDCWD, path, full)) return syscall(SYS_truncate, path, size);
    enter();
    int result = syscall(SYS_truncate, path, size);
    if (!result) record((struct event){.kind = 't', .fd = -1, .a = size}, full, NULL);
    return leave(result);
}

int fallocate(int fd, int mode, off_t offset, off_t size) {
    struct stat found;
    if (!is_tracked(fd)) return syscall(SYS_fallocate, fd, mode, offset, size);
    if (mode) die("modes of fallocate are not recorded");
    enter();
    int result = syscall(SYS_fallocate, fd, mode, offset, size);
    if (!result) {
        if (fstat(fd, &found)) die("fstat");
        record((struct event){.kind = 't', .fd = fd, .a = found.st_size}, NULL, NULL);
    }
    return leave(result);
}

int posix_fallocate(int fd, off_t offset, off_t size) {
    return fallocate(fd, 0, offset, size) ? errno : 0;
}

ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t size, unsigned flags) {
    if (is_tracked(out)) die("copy_file_range is not recorded");
    return syscall(SYS_copy_file_range, in, from, out, to, size, flags);
}

ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
    if (is_tracked(out)) die("sendfile is not recorded");
    return syscall(SYS_sendfile, out, in, offset, size);
}

/* -- syncs ------------------------------------------------------------------------------------ */

static int synced(int fd, long call) {
    if (!is_tracked(fd)) return syscall(call, fd);
    enter();
    compare_regions();
    uint64_t covers = count;
    leave(0);
    int result = syscall(call, fd);
    enter();
    if (!result) record((struct event){.kind = 's', .fd = fd, .covers = covers}, NULL, NULL);
    return leave(result);
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* -- mappings --------------------------------------------------------------------------------- */

void *mmap(void *want, size_t size, int protection, int flags, int fd, off_t offset) {
    if (!is_tracked(fd) || !(protection & PROT_WRITE) || !(flags & MAP_SHARED))
        return (void *)syscall(SYS_mmap, want, size, protection, flags, fd, offset);
    enter();
    char *start = (char *)syscall(SYS_mmap, want, size, protection, flags, fd, offset);
    if (start == MAP_FAILED) return (void *)leave((long)start);
    int number = 0;
    while (number < REGIONS_MAX && regions[number].size) number++;
    char *copy = malloc(size);
    if (number == REGIONS_MAX || !copy) die("too many mappings");
    memcpy(copy, start, size);
    record((struct event){.kind = 'M', .fd = fd, .a = offset, .b = number}, NULL, NULL);
    regions[number] = (struct region){start, copy, size};
    return (void *)leave((long)start);
}

int munmap(void *start, size_t size) {
    int number = 0;
    enter();
    while (number < REGIONS_MAX && (!regions[number].size || regions[number].start != start))
        number++;
    if (number < REGIONS_MAX) {
        if (log_fd >= 0) compare_regions();
        free(regions[number].copy);
        regions[number] = (struct region){0};
    }
    return leave(syscall(SYS_munmap, start, size));
}

int msync(void *start, size_t size, int flags) {
    enter();
    for (int i = 0; i < REGIONS_MAX; i++)
        if (regions[i].size && (char *)start >= regions[i].start &&
            (char *)start < regions[i].start + regions[i].size)
            die("msync of a written mapping is not recorded");
    leave(0);
    return syscall(SYS_msync, start, size, flags);
}

/* -- names ------------------------------------------------------------------------------------ */

static long named(uint32_t kind, const char *path, long result) {
    if (!result) record((struct event){.kind = kind}, path, NULL);
    return leave(result);
}

int mkdirat(int at, const char *path, mode_t mode) {
    char full[PATH_MAX];
    if (!absolute(at, path, full)) return syscall(SYS_mkdirat, at, path, mode);
    return enter(), named('k', full, syscall(SYS_mkdirat, at, path, mode));
}

int unlinkat(int at, const char *path, int flags) {
    char full[PATH_MAX];
    if (!absolute(at, path, full)) return syscall(SYS_unlinkat, at, path, flags);
    uint32_t kind = flags & AT_REMOVEDIR ? 'D' : 'u';
    return enter(), named(kind, full, syscall(SYS_unlinkat, at, path, flags));
}

int renameat2(int at, const char *path, int to, const char *target, unsigned flags) {
    char full[PATH_MAX], full_target[PATH_MAX];
    int from_below = absolute(at, path, full), to_below = absolute(to, target, full_target);
    if (!from_below && !to_below) return syscall(SYS_renameat2, at, path, to, target, flags);
    if (!from_below || !to_below || flags) die("this rename is not recorded");
    enter();
    int result = syscall(SYS_renameat2, at, path, to, target, flags);
    struct event event = {.kind = 'r', .data_size = strlen(full_target)};
    if (!result) record(event, full, full_target);
    return leave(result);
}

int linkat(int at, const char *path, int to, const char *target, int flags) {
    char full[PATH_MAX];
    if (absolute(to, target, full)) die("a second name of a file is not recorded");
    return syscall(SYS_linkat, at, path, to, target, flags);
}

int symlinkat(const char *path, int to, const char *target) {
    char full[PATH_MAX];
    if (absolute(to, target, full)) die("a symbolic link is not recorded");
    return syscall(SYS_symlinkat, path, to, target);
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int link(const char *path, const char *target) {
    return linkat(AT_FDCWD, path, AT_FDCWD, target, 0);
}
int symlink(const char *path, const char *target) { return symlinkat(path, AT_FDCWD, target); }
int renameat(int at, const char *path, int to, const char *target) {
    return renameat2(at, path, to, target, 0);
}
int rename(const char *path, const char *target) {
    return renameat2(AT_FDCWD, path, AT_FDCWD, target, 0);
}

/* -- what the application says ---------------------------------------------------------------- */

/* The directory is absolute and without links; what is open in it already is not seen. */
void trace_begin(const char *directory, const char *log) {
    enter();
    if (strlen(directory) >= sizeof root) die("a path is too long");
    strcpy(root, directory);
    root_size = strlen(root);
    count = 0;
    memset(tracked, 0, sizeof tracked);
    for (int i = 0; i < REGIONS_MAX; i++) free(regions[i].copy);
    memset(regions, 0, sizeof regions);
    int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
    log_fd = syscall(SYS_openat, AT_FDCWD, log, flags, 0600);
    if (log_fd < 0) die("the log cannot be opened");
    leave(0);
}

void trace_end(void) {
    enter();
    syscall(SYS_close, log_fd);
    log_fd = -1;
    memset(tracked, 0, sizeof tracked);
    leave(0);
}

void die_after_meta(void) { is_doomed = 1; }

void trace_note(const void *data, size_t size) {
    enter();
    record((struct event){.kind = 'n', .data_size = size}, NULL, data);
    leave(0);
}

/* -- the same by their other names ------------------------------------------------------------ */

#define ALSO(name) __attribute__((alias(#name)))
int open64(const char *path, int flags, ...) ALSO(open);
int openat64(int at, const char *path, int flags, ...) ALSO(openat);
int __open64_2(const char *path, int flags) ALSO(__open_2);
int __openat64_2(int at, const char *path, int flags) ALSO(__openat_2);
int creat64(const char *path, mode_t mode) ALSO(creat);
int fcntl64(int fd, int command, ...) ALSO(fcntl);
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) ALSO(pwrite);
ssize_t pwritev64(int fd, const struct iovec *parts, int n, off64_t offset) ALSO(pwritev);
ssize_t pwritev64v2(int fd, const struct iovec *p, int n, off64_t o, int f) ALSO(pwritev2);
int ftruncate64(int fd, off64_t size) ALSO(ftruncate);
int truncate64(const char *path, off64_t size) ALSO(truncate);
int fallocate64(int fd, int mode, off64_t offset, off64_t size) ALSO(fallocate);
int posix_fallocate64(int fd, off64_t offset, off64_t size) ALSO(posix_fallocate);
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size) ALSO(sendfile);
void *mmap64(void *w, size_t size, int protection, int flags, int fd, off64_t o) ALSO(mmap);
