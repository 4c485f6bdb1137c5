/* Servers that differ in how they accept. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app.h"

#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif

typedef int take(int listener, struct sockaddr_storage *peer, socklen_t *size);

static int by_accept(int listener, struct sockaddr_storage *peer, socklen_t *size)
{
	return accept(listener, (struct sockaddr *)peer, size);
}

static int by_accept4(int listener, struct sockaddr_storage *peer, socklen_t *size)
{
	return accept4(listener, (struct sockaddr *)peer, size, SOCK_CLOEXEC);
}

static int by_syscall(int listener, struct sockaddr_storage *peer, socklen_t *size)
{
	return syscall(SYS_accept4, listener, peer, size, SOCK_CLOEXEC);
}

static int by_syscall_accept(int listener, struct sockaddr_storage *peer, socklen_t *size)
{
	return syscall(SYS_accept, listener, peer, size);
}

/* The address is asked for when the connection is already there. */
static int by_getpeername(int listener, struct sockaddr_storage *peer, socklen_t *size)
{
	int client = accept(listener, NULL, NULL);

	if (client >= 0 && getpeername(client, (struct sockaddr *)peer, size))
		perror("getpeername");
	return client;
}

static int by_poll(int listener, struct sockaddr_storage *peer, socklen_t *size)
{
	struct pollfd waited = { .fd = listener, .events = POLLIN };

	fcntl(listener, F_SETFL, O_NONBLOCK);
	if (poll(&waited, 1, -1) != 1)
		return -1;
	return accept4(listener, (struct sockaddr *)peer, size, SOCK_NONBLOCK);
}

static int by_select(int listener, struct sockaddr_storage *peer, socklen_t *size)
{
	fd_set waited;

	FD_ZERO(&waited);
	FD_SET(listener, &waited);
	if (select(listener + 1, &waited, NULL, NULL, NULL) != 1)
		return -1;
	return accept(listener, (struct sockaddr *)peer, size);
}

static int by_epoll(int listener, struct sockaddr_storage *peer, socklen_t *size)
{
	struct epoll_event event = { .events = EPOLLIN };
	int client, queue = epoll_create1(EPOLL_CLOEXEC);

	epoll_ctl(queue, EPOLL_CTL_ADD, listener, &event);
	if (epoll_wait(queue, &event, 1, -1) != 1)
		return -1;
	client = accept(listener, (struct sockaddr *)peer, size);
	close(queue);
	return client;
}

/* As a program falls back that wants io_uring and finds a kernel without it. */
static int by_uring(int listener, struct sockaddr_storage *peer, socklen_t *size)
{
	char parameters[120] = { 0 };

	if (syscall(SYS_io_uring_setup, 8, parameters) >= 0) {
		fputs("io_uring is granted\n", stderr);
		exit(3);
	}
	return by_accept4(listener, peer, size);
}

/* The listener is used as another descriptor, which came over a socket. */
static int by_passed(int listener, struct sockaddr_storage *peer, socklen_t *size)
{
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { 0 };
	char byte = 0;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = sizeof control };
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	int pair[2], copy, client;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return -1;
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &listener, sizeof listener);
	if (sendmsg(pair[0], &message, 0) < 0 || recvmsg(pair[1], &message, 0) < 0)
		return -1;
	memcpy(&copy, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof copy);
	client = accept(copy, (struct sockaddr *)peer, size);
	close(copy);
	close(pair[0]);
	close(pair[1]);
	return client;
}

static const struct {
	const char *name;
	take *take;
} ways[] = {
	{ "accept", by_accept }, { "accept4", by_accept4 }, { "syscall", by_syscall },
	{ "syscall-accept", by_syscall_accept }, { "getpeername", by_getpeername },
	{ "poll", by_poll }, { "select", by_select }, { "epoll", by_epoll },
	{ "uring", by_uring }, { "passed", by_passed },
	{ "refusing", by_accept }, { "killing", by_accept },
	{ "threads", by_accept }, { "forked", by_accept }, { "shared", by_accept },
};

/* A filter as sandboxed servers have one: what it does not name is refused, or ends the process. */
static int confine(unsigned otherwise)
{
	static const int allowed[] = {
		SYS_socket, SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_connect, SYS_getsockname,
		SYS_getpeername, SYS_getsockopt, SYS_setsockopt, SYS_sendmsg, SYS_recvmsg, SYS_sendto,
		SYS_recvfrom, SYS_read, SYS_write, SYS_close, SYS_poll, SYS_fcntl, SYS_mmap, SYS_munmap,
		SYS_brk, SYS_getpid, SYS_gettid, SYS_exit_group, SYS_rt_sigreturn,
	};
	enum { COUNT = sizeof allowed / sizeof *allowed };
	struct sock_filter code[COUNT + 3] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog filter = { COUNT + 3, code };
	int at;

	for (at = 0; at < COUNT; at++)
		code[at + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[at], COUNT - at, 0);
	code[COUNT + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, otherwise);
	code[COUNT + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

static void answer(int client, const struct sockaddr_storage *peer, const char *way)
{
	char request[2048], text[1024], body[512], from[64], at[64];
	struct pollfd waited = { .fd = client, .events = POLLIN };
	struct sockaddr_storage local;
	socklen_t size = sizeof local;

	if (poll(&waited, 1, 10000) != 1 || read(client, request, sizeof request) <= 0)
		return;
	getsockname(client, (struct sockaddr *)&local, &size);
	print_address(from, sizeof from, peer);
	print_address(at, sizeof at, &local);
	snprintf(body, sizeof body, "{\"name\":\"%s\",\"peer\":\"%s\",\"local\":\"%s\",\"pid\":%d,\"thread\":%ld}\n",
		way, from, at, getpid(), syscall(SYS_gettid));
	snprintf(text, sizeof text, "HTTP/1.0 200 OK\r\ncontent-length: %zu\r\nconnection: close\r\n\r\n%s",
		strlen(body), body);
	if (write(client, text, strlen(text)) < 0)
		perror("write");
}

struct server {
	int listener;
	const char *way;
	take *take;
};

static void *loop(void *argument)
{
	struct server *server = argument;

	for (;;) {
		struct sockaddr_storage peer = { 0 };
		socklen_t size = sizeof peer;
		int client = server->take(server->listener, &peer, &size);

		if (client < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			perror("accept");
			return NULL;
		}
		answer(client, &peer, server->way);
		close(client);
	}
}

int serve(int argc, char **argv)
{
	int port = atoi(argv[1]), count = argc > 2 ? atoi(argv[2]) : 1, shared = !strcmp(argv[0], "shared");
	struct server server = { .way = argv[0] };
	pthread_t thread;
	size_t at;

	for (at = 0; at < sizeof ways / sizeof *ways; at++)
		if (!strcmp(ways[at].name, argv[0]))
			server.take = ways[at].take;
	if (!server.take)
		return fputs("no such way\n", stderr), 2;
	/* Sockets that share a port are each a process's own; else children inherit one. */
	for (at = 1; shared && at < (size_t)count && fork() > 0; at++)
		;
	if (!strcmp(argv[0], "refusing") && confine(SECCOMP_RET_ERRNO | EPERM))
		return fail("seccomp");
	server.listener = listen_on(port, shared);
	if (server.listener < 0)
		return fail("listen");
	if (!strcmp(argv[0], "killing") && confine(SECCOMP_RET_KILL_PROCESS))
		return fail("seccomp");
	if (!strcmp(argv[0], "threads"))
		while (--count > 0)
			pthread_create(&thread, NULL, loop, &server);
	if (!strcmp(argv[0], "forked"))
		while (--count > 0 && fork() > 0)
			;
	loop(&server);
	return 1;
}
