/* Names and programs from many threads at once, for so many seconds; prints what went wrong. */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 64 };
static time_t end;
static int rounds;

static int lookup(void) {
    struct addrinfo *list = NULL, hints = {.ai_socktype = SOCK_STREAM};
    int error = getaddrinfo("db", "80", &hints, &list), count = 0;
    if (error) return error == EAI_AGAIN ? 0 : 1;
    for (struct addrinfo *entry = list; entry; entry = entry->ai_next) count++;
    freeaddrinfo(list);
    return count == 2 ? 0 : 2;
}

static void waited(pid_t child, const char *what) {
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) < 0 || status)
        printf("%s: %d %x %d\n", what, child, status, errno);
}

static void *work(void *number) {
    char *arguments[] = {"/bin/true", NULL}, *variables[] = {"A=1", NULL};
    while (time(NULL) < end) {
        int error = lookup();
        if (error) printf("name: %d\n", error);
        pid_t child = 0;
        switch ((long)number % 4) {
        case 0:
            child = vfork();
            if (child == 0) {
                execve(arguments[0], arguments, variables);
                _exit(99);
            }
            waited(child, "vfork");
            break;
        case 1:
            child = fork();
            if (child == 0) {
                error = lookup();
                if (error) _exit(error);
                execvpe("true", arguments, variables);
                _exit(99);
            }
            waited(child, "fork");
            break;
        case 2:
            posix_spawn(&child, arguments[0], NULL, NULL, arguments, variables);
            waited(child, "spawn");
            break;
        }
        __atomic_add_fetch(&rounds, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

int main(int count, char **words) {
    pthread_t threads[THREADS];
    end = time(NULL) + atoi(words[1]);
    for (long at = 0; at < THREADS; at++) pthread_create(&threads[at], NULL, work, (void *)at);
    for (int at = 0; at < THREADS; at++) pthread_join(threads[at], NULL);
    if (rounds < THREADS) printf("%d rounds\n", rounds);
    return 0;
}
