/* Clients that differ in how they connect. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app.h"

struct address {
	struct sockaddr_storage bytes;
	socklen_t size;
};

static struct address parse(const char *ip, int port, int six)
{
	struct address address = { .size = sizeof(struct sockaddr_in) };
	struct sockaddr_in *v4 = (struct sockaddr_in *)&address.bytes;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address.bytes;
	char mapped[64];

	if (six) {
		snprintf(mapped, sizeof mapped, "::ffff:%s", ip);
		address.size = sizeof *v6;
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		inet_pton(AF_INET6, mapped, &v6->sin6_addr);
	} else {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		inet_pton(AF_INET, ip, &v4->sin_addr);
	}
	return address;
}

/* Waits for the outcome of a connect that went on in the background. */
static int outcome(int client)
{
	struct pollfd waited = { .fd = client, .events = POLLOUT };
	int error = 0;
	socklen_t size = sizeof error;

	if (poll(&waited, 1, 15000) != 1)
		return ETIMEDOUT;
	return getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &size) ? errno : error;
}

/* Asks by connecting again, as some programs do. */
static int again(int client, const struct address *to)
{
	struct pollfd waited = { .fd = client, .events = POLLOUT };

	if (poll(&waited, 1, 15000) != 1)
		return ETIMEDOUT;
	if (!connect(client, (const struct sockaddr *)&to->bytes, to->size) || errno == EISCONN)
		return 0;
	return errno;
}

static int attempt(const char *way, int client, const struct address *to)
{
	int waits = !strcmp(way, "poll") || !strcmp(way, "again");

	if (waits)
		fcntl(client, F_SETFL, O_NONBLOCK);
	if (!strcmp(way, "bound")) {
		struct sockaddr_in any = { .sin_family = AF_INET };

		bind(client, (struct sockaddr *)&any, sizeof any);
	}
	if (!connect(client, (const struct sockaddr *)&to->bytes, to->size))
		return 0;
	if (errno != EINPROGRESS)
		return errno;
	return !strcmp(way, "again") ? again(client, to) : outcome(client);
}

static void print_end(const char *name, int client, int (*ask)(int, struct sockaddr *, socklen_t *))
{
	struct sockaddr_storage address;
	socklen_t size = sizeof address;
	char text[64] = "";

	if (!ask(client, (struct sockaddr *)&address, &size))
		print_address(text, sizeof text, &address);
	printf(",\"%s\":\"%s\"", name, text);
}

/* A name where every libc has one, else the number. */
static const char *name_of(int error)
{
	static char number[16];

	switch (error) {
	case 0: return "ok";
	case ECONNREFUSED: return "ECONNREFUSED";
	case ECONNRESET: return "ECONNRESET";
	case EHOSTUNREACH: return "EHOSTUNREACH";
	case ENETUNREACH: return "ENETUNREACH";
	case ETIMEDOUT: return "ETIMEDOUT";
	}
	snprintf(number, sizeof number, "%d", error);
	return number;
}

/* dial WAY ADDRESS PORT: the ways are block, poll, again, bound and six. */
int dial(int argc, char **argv)
{
	static const char request[] = "whoami\n";
	int six = !strcmp(argv[0], "six"), client, error, spare;
	struct address to;

	if (argc < 3)
		return 2;
	to = parse(argv[1], atoi(argv[2]), six);
	client = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	error = attempt(argv[0], client, &to);
	printf("{\"result\":\"%s\"", name_of(error));
	if (!error) {
		char answer[1024] = "";
		ssize_t count;

		print_end("local", client, getsockname);
		print_end("peer", client, getpeername);
		fcntl(client, F_SETFL, 0);
		if (write(client, request, strlen(request)) > 0) {
			count = read(client, answer, sizeof answer - 1);
			answer[count > 0 ? strcspn(answer, "\n") : 0] = 0;
		}
		printf(",\"answer\":%s", *answer ? answer : "null");
	}
	/* The lowest descriptor that is free must be as free as without anybody's help. */
	spare = dup(client);
	printf(",\"client\":%d,\"spare\":%d}\n", client, spare);
	return error != 0;
}
