/* Threads and children that accept on one listener, threads that connect, and threads that fork. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "app.h"

#define THREADS 64

static int listener, port;
static int stop;
static long accepted, clients, connected, forked, failed;

static void count(long *what)
{
	__sync_fetch_and_add(what, 1);
}

static int stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_ACQUIRE);
}

/* Whether a peer is what it can be: this process by loopback, or a client of another machine. */
static int is_peer(const struct sockaddr_in *peer)
{
	unsigned address = ntohl(peer->sin_addr.s_addr);

	if (peer->sin_family == AF_INET && (address == INADDR_LOOPBACK || address >> 24 != 127))
		return 1;
	fprintf(stderr, "accepted from %s\n", inet_ntoa(peer->sin_addr));
	return 0;
}

/* Accepts once, if there is somebody; whether what was seen is right. */
static int accept_once(void)
{
	struct sockaddr_in peer = { 0 }, again = { 0 };
	struct pollfd waited = { .fd = listener, .events = POLLIN };
	socklen_t size = sizeof peer;
	int client, right;

	if (poll(&waited, 1, 100) != 1)
		return 1;
	client = accept(listener, (struct sockaddr *)&peer, &size);
	if (client < 0)
		return 1;
	right = is_peer(&peer);
	size = sizeof again;
	if (!getpeername(client, (struct sockaddr *)&again, &size))
		right = right && again.sin_addr.s_addr == peer.sin_addr.s_addr && again.sin_port == peer.sin_port;
	count(&accepted);
	if (peer.sin_addr.s_addr != htonl(INADDR_LOOPBACK))
		count(&clients);
	close(client);
	return right;
}

static void *accepting(void *none)
{
	while (!stopped())
		if (!accept_once())
			count(&failed);
	return none;
}

/* To the app's own listener, by the port that it asked for. */
static int connect_once(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int client = socket(AF_INET, SOCK_STREAM, 0), broken;

	broken = client < 0 || connect(client, (struct sockaddr *)&address, sizeof address);
	if (broken)
		perror("connect");
	if (client >= 0)
		close(client);
	return broken;
}

static void *connecting(void *none)
{
	while (!stopped()) {
		count(connect_once() ? &failed : &connected);
		usleep(1000);
	}
	return none;
}

static void fork_once(void)
{
	int status;
	pid_t child = fork();

	if (!child)
		_exit(connect_once() || !accept_once());
	count(child < 0 || waitpid(child, &status, 0) < 0 || status ? &failed : &forked);
}

static void *forking(void *none)
{
	while (!stopped())
		fork_once();
	return none;
}

/* Of eight threads, one connects, one forks, and six accept. */
static void *(*const kinds[8])(void *) = {
	connecting, forking, accepting, accepting, accepting, accepting, accepting, accepting,
};

int stress(int argc, char **argv)
{
	time_t end = time(NULL) + atoi(argv[1]);
	pthread_t threads[THREADS];
	int at;

	(void)argc;
	port = atoi(argv[0]);
	listener = listen_on(port, 0);
	if (listener < 0)
		return fail("listen");
	fcntl(listener, F_SETFL, O_NONBLOCK);
	for (at = 0; at < THREADS; at++)
		if (pthread_create(&threads[at], NULL, kinds[at % 8], NULL))
			return fail("pthread_create");
	while (time(NULL) < end)
		usleep(10000);
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	for (at = 0; at < THREADS; at++)
		pthread_join(threads[at], NULL);
	printf("{\"accepted\":%ld,\"clients\":%ld,\"connected\":%ld,\"forked\":%ld,\"failed\":%ld}\n",
		accepted, clients, connected, forked, failed);
	return failed != 0;
}
