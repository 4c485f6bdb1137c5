/* Every way to look a name up. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "app.h"

static int print_host(const struct hostent *found)
{
	char ip[INET6_ADDRSTRLEN];
	int at;

	if (!found)
		return printf("h_errno %d\n", h_errno), 1;
	for (at = 0; found->h_addr_list[at]; at++)
		puts(inet_ntop(found->h_addrtype, found->h_addr_list[at], ip, sizeof ip));
	return 0;
}

static int by_addrinfo(const char *name)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found, *one;
	char ip[INET_ADDRSTRLEN];
	int error = getaddrinfo(name, "80", &hints, &found);

	if (error)
		return printf("%s\n", error == EAI_NONAME ? "EAI_NONAME" : error == EAI_AGAIN ? "EAI_AGAIN" : gai_strerror(error)), 1;
	for (one = found; one; one = one->ai_next)
		puts(inet_ntop(AF_INET, &((struct sockaddr_in *)one->ai_addr)->sin_addr, ip, sizeof ip));
	freeaddrinfo(found);
	return 0;
}

static int by_resolver(const char *name, int (*ask)(const char *, int, int, unsigned char *, int))
{
	unsigned char answer[4096];
	int length = ask(name, 1, 1, answer, sizeof answer);

	if (length < 16)
		return printf("h_errno %d\n", h_errno), 1;
	/* The last record of such an answer is an address. */
	printf("%d.%d.%d.%d\n", answer[length - 4], answer[length - 3], answer[length - 2], answer[length - 1]);
	return 0;
}

int names(int argc, char **argv)
{
	const char *way = argv[0], *name = argv[1];

	(void)argc;
	if (!strcmp(way, "getaddrinfo"))
		return by_addrinfo(name);
	if (!strcmp(way, "gethostbyname"))
		return print_host(gethostbyname(name));
	if (!strcmp(way, "gethostbyname2"))
		return print_host(gethostbyname2(name, AF_INET));
	if (!strcmp(way, "gethostbyname_r")) {
		struct hostent entry, *found = NULL;
		char buffer[2048];
		int error;

		gethostbyname_r(name, &entry, buffer, sizeof buffer, &found, &error);
		h_errno = error;
		return print_host(found);
	}
	if (!strcmp(way, "res_query"))
		return by_resolver(name, res_query);
	if (!strcmp(way, "res_search"))
		return by_resolver(name, res_search);
	if (!strcmp(way, "hostname")) {
		struct utsname machine;
		char host[256];

		if (gethostname(host, sizeof host) || uname(&machine))
			return fail("gethostname");
		return printf("%s %s\n", host, machine.nodename), 0;
	}
	return 2;
}
