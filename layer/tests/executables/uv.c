/* A program that accepts as old versions of libuv did, by a function of its own that makes the
 * system call itself. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>

__attribute__((noipa)) static int
uv__accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
    long result;
    register long r10 __asm__("r10") = flags;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"((long)SYS_accept4), "D"((long)fd), "S"(address), "d"(len), "r"(r10)
                     : "rcx", "r11", "memory");
    if (result < 0) {
        errno = -result;
        return -1;
    }
    return result;
}

int uv_accept(int fd, struct sockaddr_in *peer)
{
    socklen_t len = sizeof *peer;
    return uv__accept4(fd, (struct sockaddr *)peer, &len, SOCK_CLOEXEC);
}

int main(int count, char **words)
{
    struct sockaddr_in own = {.sin_family = AF_INET}, peer;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    own.sin_port = htons(count > 1 ? atoi(words[1]) : 0);
    if (uv_accept(-1, &peer) != -1 || errno != EBADF)
        return 2;
    if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 5))
        return 1;
    if (uv_accept(listener, &peer) < 0)
        return 1;
    printf("accepted %s:%d\n", inet_ntoa(peer.sin_addr), ntohs(peer.sin_port));
    return 0;
}
