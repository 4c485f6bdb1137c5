/* Every way to run another program. */
#define _GNU_SOURCE
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app.h"

extern char **environ;

static int end_of(pid_t child)
{
	int status;

	if (child < 0 || waitpid(child, &status, 0) < 0)
		return fail("spawn");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int started(void *argument)
{
	char **argv = argument;

	execv(*argv, argv);
	_exit(127);
}

static int by_clone(char **argv)
{
	static char stack[64 << 10];

	return end_of(clone(started, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, argv));
}

static int by_shell(char **argv)
{
	char line[4096] = "";

	for (; *argv; argv++) {
		strncat(line, *argv, sizeof line - strlen(line) - 2);
		strcat(line, " ");
	}
	return WEXITSTATUS(system(line));
}

/* spawn WAY CMD…: ways are fork, vfork, spawn, spawnp, clone, bare, execvp, execl, execveat, system. */
int spawn(int argc, char **argv)
{
	const char *way = *argv++;
	static char *bare[] = { NULL };
	pid_t child = -1;

	if (argc < 2)
		return 2;
	if (!strcmp(way, "fork")) {
		child = fork();
		if (!child)
			_exit((execv(*argv, argv), 127));
	} else if (!strcmp(way, "vfork")) {
		child = vfork();
		if (!child)
			_exit((execve(*argv, argv, environ), 127));
	} else if (!strcmp(way, "bare")) {
		child = vfork();
		if (!child)
			_exit((execve(*argv, argv, bare), 127));
	} else if (!strcmp(way, "execvp")) {
		execvp(*argv, argv);
		return fail("execvp");
	} else if (!strcmp(way, "execl")) {
		execl(argv[0], argv[0], argv[1], argv[1] ? argv[2] : NULL, argc > 4 ? argv[3] : NULL, NULL);
		return fail("execl");
	} else if (!strcmp(way, "spawn")) {
		if (posix_spawn(&child, *argv, NULL, NULL, argv, environ))
			return fail("posix_spawn");
	} else if (!strcmp(way, "spawnp")) {
		if (posix_spawnp(&child, *argv, NULL, NULL, argv, bare))
			return fail("posix_spawnp");
	} else if (!strcmp(way, "clone")) {
		return by_clone(argv);
	} else if (!strcmp(way, "system")) {
		return by_shell(argv);
	}
	return end_of(child);
}
