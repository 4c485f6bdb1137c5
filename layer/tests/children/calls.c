/* syscall(2), with few arguments and many; prints what it returns. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    errno = 77;
    printf("pid %d %d\n", syscall(SYS_getpid) == getpid(), errno);
    char *place = (char *)syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *place = 1;
    printf("map %d\n", *place);
    /* The seventh word is the sixth argument: where in the file. */
    FILE *file = tmpfile();
    for (int at = 0; at < 8192; at++) putc(at / 4096 ? 'b' : 'a', file);
    fflush(file);
    place = (char *)syscall(SYS_mmap, NULL, 4096, PROT_READ, MAP_PRIVATE, fileno(file), 4096L);
    printf("map at %c\n", *place);
    errno = 0;
    long value = syscall(SYS_close, -1);
    printf("close %ld %d\n", value, errno);
    errno = 0;
    value = syscall(12345);
    printf("none %ld %d\n", value, errno == ENOSYS);
    char ring[256] = "";
    errno = 0;
    value = syscall(SYS_io_uring_setup, 8, ring);
    printf("ring %ld %d\n", value, errno == ENOSYS);
    struct utsname system;
    value = syscall(SYS_uname, &system);
    printf("name %ld %s\n", value, system.nodename);
    fflush(stdout);
    long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        printf("child\n");
        fflush(stdout);
        _exit(0);
    }
    waitpid((pid_t)child, NULL, 0);
    errno = 0;
    value = syscall(SYS_socket, 99, 1, 0);
    printf("socket %ld %d\n", value, errno == EAFNOSUPPORT);
    return 0;
}
