/* Threads that accept, threads that connect, and forks in between. */
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
static volatile int stop;
static long accepted, connected, forked, failed;

static void *accepting(void *none)
{
	while (!stop) {
		struct sockaddr_storage peer;
		struct pollfd waited = { .fd = listener, .events = POLLIN };
		socklen_t size = sizeof peer;
		int client;

		if (poll(&waited, 1, 100) != 1)
			continue;
		client = accept(listener, (struct sockaddr *)&peer, &size);
		if (client < 0)
			continue;
		size = sizeof peer;
		getpeername(client, (struct sockaddr *)&peer, &size);
		__sync_fetch_and_add(&accepted, 1);
		close(client);
	}
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
	while (!stop) {
		if (connect_once())
			__sync_fetch_and_add(&failed, 1);
		else
			__sync_fetch_and_add(&connected, 1);
		usleep(1000);
	}
	return none;
}

static void fork_once(void)
{
	int status;
	pid_t child = fork();

	if (!child)
		_exit(connect_once());
	if (child < 0 || waitpid(child, &status, 0) < 0 || status)
		__sync_fetch_and_add(&failed, 1);
	else
		forked++;
}

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
		if (pthread_create(&threads[at], NULL, at % 8 ? accepting : connecting, NULL))
			return fail("pthread_create");
	while (time(NULL) < end)
		fork_once();
	stop = 1;
	for (at = 0; at < THREADS; at++)
		pthread_join(threads[at], NULL);
	printf("{\"accepted\":%ld,\"connected\":%ld,\"forked\":%ld,\"failed\":%ld}\n",
		accepted, connected, forked, failed);
	return failed != 0;
}
