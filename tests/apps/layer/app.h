/* What the parts of the C app share. */
#ifndef APP_H
#define APP_H

#include <stddef.h>
#include <sys/socket.h>

/* Each takes what stands behind its name on the command line; the value is the exit code. */
int serve(int argc, char **argv);
int stress(int argc, char **argv);
int dial(int argc, char **argv);
int spawn(int argc, char **argv);
int names(int argc, char **argv);
int bench(int argc, char **argv);

int fail(const char *what);
/* ADDRESS:PORT of IPv4, also of one that is mapped into IPv6. */
void print_address(char *text, size_t size, const struct sockaddr_storage *address);
int listen_on(int port, int shared);

#endif
