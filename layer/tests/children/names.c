/* Names in every form that a C library has for them; prints what it is told. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <resolv.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static void info(const char *name, const char *service, int family, int flags) {
    struct addrinfo hints = {0}, *list = NULL;
    hints.ai_family = family;
    hints.ai_flags = flags;
    hints.ai_socktype = SOCK_STREAM;
    errno = 77;
    int error = getaddrinfo(name, service, &hints, &list);
    printf("info %s", name ? name : "-");
    if (error) {
        const char *what = error == EAI_NONAME || error == -5 ? "none"
                           : error == EAI_AGAIN              ? "again"
                           : error == EAI_SERVICE            ? "service"
                           : error == EAI_SYSTEM             ? strerror(errno)
                                                             : "other";
        printf(" error %s\n", what);
        return;
    }
    for (struct addrinfo *entry = list; entry; entry = entry->ai_next) {
        char host[64], port[8];
        getnameinfo(entry->ai_addr, entry->ai_addrlen, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
        printf(" %s/%s", host, port);
    }
    if (flags & AI_CANONNAME) printf(" %s", list->ai_canonname);
    printf("%s\n", errno == 77 ? "" : " errno");
    freeaddrinfo(list);
}

static void host(const char *form, struct hostent *host, const int *error) {
    printf("%s", form);
    if (!host) {
        printf(" error %d\n", *error);
        return;
    }
    printf(" %s", host->h_name);
    for (char **alias = host->h_aliases; *alias; alias++) printf("=%s", *alias);
    for (char **place = host->h_addr_list; *place; place++) {
        char text[64];
        printf(" %s", inet_ntop(host->h_addrtype, *place, text, sizeof text));
    }
    printf("\n");
}

static void reentrant(const char *name, size_t len) {
    struct hostent place, *found = NULL;
    char buffer[512];
    int error = 0;
    int code = gethostbyname_r(name, &place, buffer, len, &found, &error);
    if (code == ERANGE) printf("reentrant: too small\n");
    else host("reentrant", found, &error);
}

static void back(const char *text, int family, int flags) {
    char host[64] = "?", port[8] = "", address[16];
    inet_pton(family, text, address);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(80)};
    memcpy(&six.sin6_addr, address, 16);
    memcpy(&four.sin_addr, address, 4);
    void *place = family == AF_INET ? (void *)&four : (void *)&six;
    socklen_t len = family == AF_INET ? sizeof four : sizeof six;
    int error = getnameinfo(place, len, host, sizeof host, port, sizeof port, flags | NI_NUMERICSERV);
    printf("back %s %s%s %s\n", error == 0                  ? "ok"
                                 : error == EAI_NONAME   ? "none"
                                 : error == EAI_AGAIN    ? "again"
                                 : error == EAI_OVERFLOW ? "overflow"
                                                         : "other",
           error ? "" : host, error ? "" : ":", error ? "" : port);
}

int main(void) {
    info("db", "80", AF_UNSPEC, AI_CANONNAME);
    info("db", "80", AF_INET, 0);
    info("db", "80", AF_INET6, 0);
    info("four", "80", AF_INET6, AI_V4MAPPED);
    info("four", "80", AF_INET6, 0);
    info("nobody", "80", AF_UNSPEC, 0);
    info("again", "80", AF_UNSPEC, 0);
    info("db", "no-such-service", AF_UNSPEC, 0);
    info("db", "80", AF_UNSPEC, AI_NUMERICHOST);
    info("127.1", "80", AF_UNSPEC, AI_NUMERICHOST);
    info(NULL, "80", AF_INET, AI_PASSIVE);

    host("by name", gethostbyname("db"), &h_errno);
    host("by name", gethostbyname("nobody"), &h_errno);
    host("by name", gethostbyname2("db", AF_INET6), &h_errno);
    reentrant("db", 512);
    reentrant("db", 20);
    reentrant("nobody", 512);

    back("10.9.0.1", AF_INET, 0);
    back("2001:db8::1", AF_INET6, 0);
    back("10.9.0.2", AF_INET, 0);
    back("10.9.0.2", AF_INET, NI_NAMEREQD);
    back("10.9.0.1", AF_INET, NI_NUMERICHOST);
    back("10.9.0.3", AF_INET, 0);
    host("by address", gethostbyaddr("\x0a\x09\x00\x01", 4, AF_INET), &h_errno);
    host("by address", gethostbyaddr("\x0a\x09\x00\x02", 4, AF_INET), &h_errno);
    unsigned char answer[512], question[512];
    printf("query %d\n", res_query("_a._b.db", 1, 33, answer, sizeof answer) > 0 ? answer[7] : -1);
    int len = res_query("nobody", 1, 1, answer, sizeof answer);
    printf("query %d %d\n", len, h_errno);
    printf("search %d\n", res_search("db", 1, 16, answer, sizeof answer) > 0);
    printf("domain %d\n", res_querydomain("db", "shop", 1, 1, answer, sizeof answer) > 0);
    len = res_query("db", 1, 1, answer, 20);
    printf("cut %d %d\n", len > 20, answer[2] & 2);
    len = res_mkquery(0, "db", 1, 1, NULL, 0, NULL, question, sizeof question);
    len = res_send(question, len, answer, sizeof answer);
    printf("send %d %d\n", len > 0, memcmp(question, answer, 2));

    len = res_mkquery(0, "nobody", 1, 1, NULL, 0, NULL, question, sizeof question);
    int got = res_send(question, len, answer, sizeof answer);
    printf("send %d %d %d\n", got == len, memcmp(question, answer, 2), answer[3] & 15);

    char name[65] = "";
    struct utsname system;
    printf("host %d", gethostname(name, sizeof name));
    uname(&system);
    printf(" %s %s\n", name, system.nodename);
    return 0;
}
