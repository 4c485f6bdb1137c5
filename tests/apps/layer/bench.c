/* How long a call takes, in nanoseconds: the least of a few rounds. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "app.h"

#define ROUNDS 7

static struct sockaddr_in there = { .sin_family = AF_INET };
static int listener, client, server, datagrams;

static struct sockaddr_storage found;

static int sockname(void)
{
	socklen_t size = sizeof found;

	return getsockname(server, (struct sockaddr *)&found, &size);
}

static int peername(void)
{
	socklen_t size = sizeof found;

	return getpeername(server, (struct sockaddr *)&found, &size);
}

/* A connection from its beginning to its end: connect, accept, and both are closed. */
static int whole(void)
{
	struct linger none = { 1, 0 };
	socklen_t size = sizeof found;
	int one = socket(AF_INET, SOCK_STREAM, 0), other;

	setsockopt(one, SOL_SOCKET, SO_LINGER, &none, sizeof none);
	if (connect(one, (struct sockaddr *)&there, sizeof there))
		return -1;
	other = accept(listener, (struct sockaddr *)&found, &size);
	close(one);
	return close(other);
}

static int datagram(void)
{
	socklen_t size = sizeof found;
	char byte = 0;

	if (sendto(datagrams, &byte, 1, 0, (struct sockaddr *)&there, sizeof there) != 1)
		return -1;
	return recvfrom(datagrams, &byte, 1, 0, (struct sockaddr *)&found, &size) == 1 ? 0 : -1;
}

static const struct {
	const char *name;
	int (*call)(void);
} calls[] = {
	{ "getsockname", sockname }, { "getpeername", peername },
	{ "connection", whole }, { "datagram", datagram },
};

static int prepare(int port)
{
	socklen_t size = sizeof found;

	there.sin_port = htons(port);
	there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = listen_on(port, 0);
	client = socket(AF_INET, SOCK_STREAM, 0);
	datagrams = socket(AF_INET, SOCK_DGRAM, 0);
	if (listener < 0 || connect(client, (struct sockaddr *)&there, sizeof there))
		return -1;
	server = accept(listener, (struct sockaddr *)&found, &size);
	return bind(datagrams, (struct sockaddr *)&there, sizeof there);
}

static double best_of(int (*call)(void), long count)
{
	double best = 1e18;
	int round;
	long at;

	for (round = 0; round < ROUNDS; round++) {
		struct timespec begun, ended;
		double each;

		clock_gettime(CLOCK_MONOTONIC, &begun);
		for (at = 0; at < count; at++)
			if (call())
				return -1;
		clock_gettime(CLOCK_MONOTONIC, &ended);
		each = ((ended.tv_sec - begun.tv_sec) * 1e9 + (ended.tv_nsec - begun.tv_nsec)) / count;
		best = each < best ? each : best;
	}
	return best;
}

/* bench PORT COUNT */
int bench(int argc, char **argv)
{
	size_t at;

	(void)argc;
	if (prepare(atoi(argv[0])))
		return fail("prepare");
	for (at = 0; at < sizeof calls / sizeof *calls; at++) {
		double nanos = best_of(calls[at].call, atol(argv[1]) / (at < 2 ? 1 : 20));

		if (nanos < 0)
			return fail(calls[at].name);
		printf("{\"call\":\"%s\",\"nanos\":%.1f}\n", calls[at].name, nanos);
	}
	return 0;
}
