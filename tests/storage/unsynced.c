/* A disk that forgets what was not synced.
 *
 * Preloaded into a process, it keeps for every file whose path holds UNSYNCED_MARK a second file,
 * PATH.synced, with the content as of the last fsync or fdatasync. When the process is killed, the
 * test puts the second files in place of the first, which is what a power cut leaves behind.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { off_t start, end; } Span;
typedef struct { char path[PATH_MAX]; Span *spans; size_t count, room; } File;

static File files[16];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static File *file_of_path(const char *path) {
    const char *mark = getenv("UNSYNCED_MARK");
    size_t length = strlen(path);
    if (!mark || !strstr(path, mark)) return NULL;
    /* the index of the log is shared memory and never synced; it is rebuilt */
    if (length > 4 && !strcmp(path + length - 4, "-shm")) return NULL;
    if (length > 7 && !strcmp(path + length - 7, ".synced")) return NULL;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (!files[i].path[0]) strcpy(files[i].path, path);
        if (!strcmp(files[i].path, path)) return &files[i];
    }
    abort();
}

static File *file_of(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return NULL;
    path[length] = 0;
    return file_of_path(path);
}

static void note(int fd, off_t start, ssize_t length) {
    if (length <= 0) return;
    pthread_mutex_lock(&lock);
    File *file = file_of(fd);
    if (file) {
        if (file->count == file->room) {
            file->room = file->room ? 2 * file->room : 64;
            file->spans = realloc(file->spans, file->room * sizeof(Span));
            if (!file->spans) abort();
        }
        file->spans[file->count++] = (Span){start, start + length};
    }
    pthread_mutex_unlock(&lock);
}

static void keep(int fd) {
    char shadow[PATH_MAX + 8], buffer[65536];
    pthread_mutex_lock(&lock);
    File *file = file_of(fd);
    if (file) {
        snprintf(shadow, sizeof shadow, "%s.synced", file->path);
        int out = open(shadow, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (out < 0) abort();
        for (size_t i = 0; i < file->count; i++)
            for (off_t at = file->spans[i].start; at < file->spans[i].end;) {
                size_t want = (size_t)(file->spans[i].end - at);
                ssize_t got = pread(fd, buffer, want < sizeof buffer ? want : sizeof buffer, at);
                if (got <= 0) break; /* cut off meanwhile */
                if (REAL(pwrite)(out, buffer, (size_t)got, at) != got) abort();
                at += got;
            }
        if (REAL(ftruncate)(out, lseek(fd, 0, SEEK_END))) abort();
        file->count = 0;
        close(out);
    }
    pthread_mutex_unlock(&lock);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    ssize_t done = REAL(pwrite)(fd, data, size, at);
    note(fd, at, done);
    return done;
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return pwrite(fd, data, size, at);
}
ssize_t write(int fd, const void *data, size_t size) {
    ssize_t done = REAL(write)(fd, data, size);
    if (done > 0) {
        off_t end = lseek(fd, 0, SEEK_CUR);
        if (end >= 0) note(fd, end - done, done);
    }
    return done;
}
int fsync(int fd) { keep(fd); return 0; }
int fdatasync(int fd) { keep(fd); return 0; }
int unlink(const char *path) {
    char shadow[PATH_MAX + 8];
    pthread_mutex_lock(&lock);
    if (file_of_path(path)) {
        snprintf(shadow, sizeof shadow, "%s.synced", path);
        REAL(unlink)(shadow);
    }
    pthread_mutex_unlock(&lock);
    return REAL(unlink)(path);
}
