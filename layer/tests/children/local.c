/* What a C library says of addresses, of this machine's own names, and of questions that make no
 * sense; prints all of it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define COUNT(array) (sizeof array / sizeof *array)

static void info(const char *node, const char *service, const struct addrinfo *hints) {
    struct addrinfo *list = NULL;
    errno = 0;
    int error = getaddrinfo(node, service, hints, &list);
    printf("%s %s %d:", node ? node : "-", service ? service : "-", error);
    if (hints) printf(" [%x %d %d %d]", hints->ai_flags, hints->ai_family, hints->ai_socktype,
                      hints->ai_protocol);
    for (struct addrinfo *entry = error ? NULL : list; entry; entry = entry->ai_next) {
        char host[64] = "", port[8] = "";
        getnameinfo(entry->ai_addr, entry->ai_addrlen, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
        printf(" %x/%d/%d/%d/%s/%s/%s", entry->ai_flags, entry->ai_family, entry->ai_socktype,
               entry->ai_protocol, host, port, entry->ai_canonname ? entry->ai_canonname : "-");
    }
    printf("\n");
    if (!error) freeaddrinfo(list);
}

static void host(struct hostent *host) {
    if (!host) {
        printf("host error %d\n", h_errno);
        return;
    }
    printf("host %s %d %d", host->h_name, host->h_addrtype, host->h_length);
    for (char **alias = host->h_aliases; *alias; alias++) printf(" %s", *alias);
    for (char **place = host->h_addr_list; *place; place++) {
        char text[64];
        printf(" %s", inet_ntop(host->h_addrtype, *place, text, sizeof text));
    }
    printf("\n");
}

static void back(const char *text, int flags, socklen_t room) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80)};
    char name[128] = "", port[64] = "";
    inet_pton(AF_INET, text, &address.sin_addr);
    int error = getnameinfo((void *)&address, sizeof address, name, room, port, room, flags);
    printf("back %s %x %u: %d %s %s\n", text, flags, room, error, error ? "" : name,
           error ? "" : port);
}

/* Some C libraries ask a name server for it. */
static int is_asked(const char *node, int family) {
    return node && strcmp(node, "localhost") == 0 && family == AF_INET6;
}

int main(void) {
    char own[65] = "", cut[4] = "";
    struct utsname system;
    printf("%d %s\n", gethostname(own, sizeof own), own);
    int done = gethostname(cut, 3);
    printf("%d %d %.3s\n", done, done ? errno : 0, cut);
    printf("%d %s\n", uname(&system), system.nodename);

    const char *nodes[] = {NULL, "127.0.0.1", "::1", "127.1", "0x7f.1", "localhost",
                           "10.1.2.3", "::ffff:10.1.2.3", "fe80::1%lo", "2001:db8::1", ""};
    const char *services[] = {NULL, "80", "http", "domain", "no-such-service", "70000", "-1", ""};
    int flags[] = {0, AI_PASSIVE, AI_CANONNAME, AI_NUMERICHOST, AI_NUMERICSERV,
                   AI_V4MAPPED | AI_ALL, AI_ADDRCONFIG, 1 << 29};
    int families[] = {AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX};
    int types[][2] = {{0, 0}, {SOCK_STREAM, 0}, {SOCK_DGRAM, IPPROTO_UDP},
                      {SOCK_STREAM, IPPROTO_UDP}, {SOCK_RAW, IPPROTO_ICMP}, {99, 0}};
    for (size_t node = 0; node < COUNT(nodes); node++)
        for (size_t service = 0; service < COUNT(services); service++) {
            info(nodes[node], services[service], NULL);
            for (size_t flag = 0; flag < COUNT(flags); flag++)
                for (size_t family = 0; family < COUNT(families); family++)
                    for (size_t type = 0; type < COUNT(types); type++) {
                        if (is_asked(nodes[node], families[family])) continue;
                        struct addrinfo hints = {.ai_flags = flags[flag],
                                                 .ai_family = families[family],
                                                 .ai_socktype = types[type][0],
                                                 .ai_protocol = types[type][1]};
                        info(nodes[node], services[service], &hints);
                    }
        }
    struct addrinfo numeric = {.ai_flags = AI_NUMERICHOST};
    info("db", "80", &numeric);
    info("not an address", NULL, &numeric);

    for (size_t node = 1; node < COUNT(nodes); node++)
        for (size_t family = 0; family < COUNT(families); family++) {
            if (family == 0) host(gethostbyname(nodes[node]));
            else if (!is_asked(nodes[node], families[family]))
                host(gethostbyname2(nodes[node], families[family]));
        }
    host(gethostbyaddr("\x7f\0\0\1", 4, AF_INET));
    host(gethostbyaddr("\x7f\0\0\1", 3, AF_INET));
    const char *addresses[] = {"127.0.0.1", "0.0.0.0", "10.1.2.3"};
    int ways[] = {NI_NUMERICHOST, NI_NUMERICHOST | NI_NUMERICSERV, NI_NUMERICHOST | NI_DGRAM};
    for (size_t at = 0; at < COUNT(addresses); at++)
        for (size_t way = 0; way < COUNT(ways); way++)
            for (socklen_t room = 0; room < 65; room += 8) back(addresses[at], ways[way], room);
    back("127.0.0.1", 0, 64);
    back("127.0.0.1", NI_NAMEREQD, 64);
    return 0;
}
