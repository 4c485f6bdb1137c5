/* A C program that uses sockets in every way a libc has.
 *
 *	app serve WAY PORT      answers HTTP with the way and both addresses
 *	app stress PORT SECONDS threads that accept, connect and fork all at once
 *	app dial WAY IP PORT    says the addresses of a connection, or the errno
 *	app spawn WAY CMD…      runs a program
 *	app names WAY NAME      looks a name up
 *	app bench PORT COUNT    nanoseconds a call
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "app.h"

int fail(const char *what)
{
	perror(what);
	return 1;
}

void print_address(char *text, size_t size, const struct sockaddr_storage *address)
{
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
	const struct sockaddr_in *four = (const struct sockaddr_in *)address;
	char ip[INET6_ADDRSTRLEN];

	if (address->ss_family == AF_INET) {
		inet_ntop(AF_INET, &four->sin_addr, ip, sizeof ip);
		snprintf(text, size, "%s:%d", ip, ntohs(four->sin_port));
	} else if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
		inet_ntop(AF_INET, &six->sin6_addr.s6_addr[12], ip, sizeof ip);
		snprintf(text, size, "%s:%d", ip, ntohs(six->sin6_port));
	} else {
		inet_ntop(AF_INET6, &six->sin6_addr, ip, sizeof ip);
		snprintf(text, size, "[%s]:%d", ip, ntohs(six->sin6_port));
	}
}

int listen_on(int port, int shared)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_storage bound;
	socklen_t size = sizeof bound;
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	char text[64];

	setsockopt(listener, SOL_SOCKET, shared ? SO_REUSEPORT : SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 512))
		return -1;
	if (getsockname(listener, (struct sockaddr *)&bound, &size))
		return -1;
	print_address(text, sizeof text, &bound);
	printf("listening %s\n", text);
	return listener;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
		int least;
	} commands[] = {
		{ "serve", serve, 2 }, { "stress", stress, 2 }, { "dial", dial, 2 },
		{ "spawn", spawn, 2 }, { "names", names, 2 }, { "bench", bench, 2 },
	};
	size_t at;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (at = 0; at < sizeof commands / sizeof *commands; at++)
		if (argc - 2 >= commands[at].least && !strcmp(argv[1], commands[at].name))
			return commands[at].run(argc - 2, argv + 2);
	fputs("app serve|stress|dial|spawn|names|bench …\n", stderr);
	return 2;
}
