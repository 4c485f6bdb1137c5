/* How long a call takes, in nanoseconds: the least of a few rounds. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "app.h"

#define ROUNDS 7
/* So many times fewer than others are calls made that take so many times longer. */
#define SLOW 20

static struct sockaddr_in there = { .sin_family = AF_INET };
static int listener, client, server, datagrams, caller;

static struct sockaddr_storage found;
static socklen_t size;

static int no_call(void)
{
	return syscall(SYS_getpid) < 0;
}

static int create(void)
{
	return close(socket(AF_INET, SOCK_STREAM, 0));
}

static int bound_to(int port)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = socket(AF_INET, SOCK_STREAM, 0), broken;

	broken = bind(one, (struct sockaddr *)&any, sizeof any);
	return close(one) || broken;
}

static int bind_any(void)
{
	return bound_to(0);
}

static int bind_port(void)
{
	return bound_to(ntohs(there.sin_port) + 1);
}

static int listen_again(void)
{
	return listen(listener, 512);
}

static int nobody_there(void)
{
	size = sizeof found;
	return accept4(listener, (struct sockaddr *)&found, &size, SOCK_NONBLOCK) >= 0;
}

/* Of datagrams: nothing is sent. */
static int towards(void)
{
	return connect(caller, (struct sockaddr *)&there, sizeof there);
}

static int sockname(void)
{
	size = sizeof found;
	return getsockname(server, (struct sockaddr *)&found, &size);
}

static int peername(void)
{
	size = sizeof found;
	return getpeername(server, (struct sockaddr *)&found, &size);
}

static int error(void)
{
	int value;

	size = sizeof value;
	return getsockopt(server, SOL_SOCKET, SO_ERROR, &value, &size);
}

static int stream(void)
{
	char byte = 0;

	if (sendto(client, &byte, 1, 0, NULL, 0) != 1)
		return -1;
	return recvfrom(server, &byte, 1, 0, NULL, NULL) != 1;
}

static int message(void)
{
	char byte = 0;
	struct iovec data = { &byte, 1 };
	struct msghdr header = { .msg_iov = &data, .msg_iovlen = 1 };

	return sendmsg(client, &header, 0) != 1 || recvmsg(server, &header, 0) != 1;
}

static int datagram(void)
{
	char byte = 0;

	size = sizeof found;
	if (sendto(datagrams, &byte, 1, 0, (struct sockaddr *)&there, sizeof there) != 1)
		return -1;
	return recvfrom(datagrams, &byte, 1, 0, (struct sockaddr *)&found, &size) != 1;
}

/* A connection from its beginning to its end: connect, accept, and both are closed. */
static int whole(void)
{
	struct linger none = { 1, 0 };
	int one = socket(AF_INET, SOCK_STREAM, 0), other;

	size = sizeof found;
	setsockopt(one, SOL_SOCKET, SO_LINGER, &none, sizeof none);
	if (connect(one, (struct sockaddr *)&there, sizeof there))
		return -1;
	do
		other = accept(listener, (struct sockaddr *)&found, &size);
	while (other < 0);
	close(one);
	return close(other);
}

static int number(void)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;

	if (getaddrinfo("10.1.2.3", "80", &hints, &list))
		return -1;
	freeaddrinfo(list);
	return 0;
}

static int hostname(void)
{
	char name[256];

	return gethostname(name, sizeof name);
}

static int system_name(void)
{
	struct utsname name;

	return uname(&name);
}

static const struct {
	const char *name;
	int (*call)(void);
	int slow;
} calls[] = {
	{ "syscall of none that is hooked", no_call, 0 },
	{ "socket and close", create, 0 },
	{ "socket, bind to port 0, close", bind_any, 0 },
	{ "socket, bind to a port, close", bind_port, 1 },
	{ "listen", listen_again, 1 },
	{ "accept4 of nobody", nobody_there, 0 },
	{ "connect of datagrams", towards, 0 },
	{ "getsockname", sockname, 0 },
	{ "getpeername", peername, 0 },
	{ "getsockopt of SO_ERROR", error, 0 },
	{ "sendto and recvfrom, TCP", stream, 0 },
	{ "sendmsg and recvmsg, TCP", message, 0 },
	{ "sendto and recvfrom, UDP", datagram, 0 },
	{ "connect, accept, close, own", whole, 1 },
	{ "getaddrinfo of a number", number, 0 },
	{ "gethostname", hostname, 0 },
	{ "uname", system_name, 0 },
};

static int prepare(int port)
{
	there.sin_port = htons(port);
	there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = listen_on(port, 0);
	client = socket(AF_INET, SOCK_STREAM, 0);
	datagrams = socket(AF_INET, SOCK_DGRAM, 0);
	caller = socket(AF_INET, SOCK_DGRAM, 0);
	if (listener < 0 || connect(client, (struct sockaddr *)&there, sizeof there))
		return -1;
	size = sizeof found;
	server = accept(listener, (struct sockaddr *)&found, &size);
	if (fcntl(listener, F_SETFL, O_NONBLOCK))
		return -1;
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
		double nanos = best_of(calls[at].call, atol(argv[1]) / (calls[at].slow ? SLOW : 1));

		if (nanos < 0)
			return fail(calls[at].name);
		printf("{\"call\":\"%s\",\"nanos\":%.1f}\n", calls[at].name, nanos);
	}
	return 0;
}
