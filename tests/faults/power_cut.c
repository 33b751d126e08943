/* What a disk holds after the power has gone, kept beside what the file system shows.
 *
 * Loaded into a process with LD_PRELOAD. Below the folder POWER_ROOT, each fsync or fdatasync of a
 * file copies its content to POWER_SHADOW/data/ID, and each fsync of a folder writes the names in
 * it, with the ID of what each stands for, to POWER_SHADOW/names/ID. An ID is inode number and time
 * of birth, so that a name which was not synced after a rename still stands for the file it did; that
 * of POWER_ROOT itself is "root".
 * `tests/faults/power_cut.py` builds from both what is left. POWER_IGNORES names what shall not
 * count ("files", "folders", "databases"): the controls of the test. No POWER_ROOT: nothing is done.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LONG_PATH (2 * PATH_MAX)

static void give_up(const char *what) {
    fprintf(stderr, "power_cut: %s: %s\n", what, strerror(errno));
    abort();  /* a shim that fails silently would show losses that are none */
}

static int identify(int folder, const char *name, char *id, int *is_folder) {
    struct statx found;
    int flags = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
    if (statx(folder, name, flags, STATX_BASIC_STATS | STATX_BTIME, &found)) return -1;
    snprintf(id, 64, "%llu-%lld-%u", (unsigned long long)found.stx_ino,
             (long long)found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
    *is_folder = S_ISDIR(found.stx_mode);
    return 0;
}

static void copy_content(int from, int to) {
    static __thread char block[1 << 16];
    off_t at = 0;
    ssize_t count;
    while ((count = pread(from, block, sizeof block, at)) > 0) {
        if (write(to, block, count) != count) give_up("write");
        at += count;
    }
    if (count < 0) give_up("pread");
}

static void copy_names(int folder, int to) {
    int own = openat(folder, ".", O_RDONLY | O_DIRECTORY);
    DIR *names = own < 0 ? NULL : fdopendir(own);
    struct dirent *one;
    if (!names) give_up("opendir");
    while ((one = readdir(names))) {
        char id[64];
        int is_folder;
        if (!strcmp(one->d_name, ".") || !strcmp(one->d_name, "..")) continue;
        if (identify(folder, one->d_name, id, &is_folder)) continue;  /* gone this moment */
        dprintf(to, "%c %s %s\n", is_folder ? 'd' : 'f', id, one->d_name);
    }
    closedir(names);
}

static int is_ignored(const char *path, int is_folder) {
    const char *ignored = getenv("POWER_IGNORES");
    const char *what = is_folder ? "folders" : strstr(path, ".sqlite") ? "databases" : "files";
    return ignored && !strcmp(ignored, what);
}

static void keep(int handle) {
    const char *root = getenv("POWER_ROOT"), *shadow = getenv("POWER_SHADOW");
    char link[64], path[PATH_MAX], id[64], part[LONG_PATH], final[LONG_PATH];
    int is_folder, saved = errno;
    if (!root || !shadow) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    size_t depth = strlen(root);
    if (strncmp(path, root, depth) || (path[depth] && path[depth] != '/')) return;
    if (identify(handle, "", id, &is_folder)) give_up("statx");
    if (!path[depth]) strcpy(id, "root");
    if (is_ignored(path, is_folder)) return;
    /* Never a second handle of a database: closing it would drop the locks of the process. */
    int is_unreadable = !is_folder && (fcntl(handle, F_GETFL) & O_ACCMODE) == O_WRONLY;
    int from = is_unreadable ? open(link, O_RDONLY | O_CLOEXEC) : handle;
    if (from < 0) give_up(path);
    /* One at a time, or an older copy could replace a newer one. */
    snprintf(part, sizeof part, "%s/lock", shadow);
    int lock = open(part, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX)) give_up("lock");
    snprintf(part, sizeof part, "%s/part-%d-%ld", shadow, getpid(), syscall(SYS_gettid));
    snprintf(final, sizeof final, "%s/%s/%s", shadow, is_folder ? "names" : "data", id);
    int to = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0) give_up(part);
    if (is_folder) copy_names(handle, to); else copy_content(from, to);
    close(to);
    if (rename(part, final)) give_up(final);
    close(lock);
    if (from != handle) close(from);
    errno = saved;
}

int fsync(int handle) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int result = real(handle);
    if (!result) keep(handle);
    return result;
}

int fdatasync(int handle) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int result = real(handle);
    if (!result) keep(handle);
    return result;
}
