/* Executes a program in the way that it is told to, with an environment of its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define IS(word) (strcmp(way, word) == 0)

static const char *command(const char *program) {
    static char line[4096];
    snprintf(line, sizeof line, "%s x", program);
    return line;
}

static int copied(FILE *from) {
    for (int byte; (byte = getc(from)) != EOF;) putchar(byte);
    fflush(stdout);
    return WEXITSTATUS(pclose(from));
}

static void run(const char *way, char *program, char **words, char **variables) {
    if (IS("execve")) execve(program, words, variables);
    if (IS("execv")) clearenv(), execv(program, words);
    if (IS("execvp")) clearenv(), execvp(program, words);
    if (IS("execvpe")) execvpe(program, words, variables);
    if (IS("execl")) clearenv(), execl(program, program, "1", "2", "3", "4", "5", "6", NULL);
    if (IS("execlp")) clearenv(), execlp(program, program, NULL);
    if (IS("execle")) execle(program, program, "1", "2", "3", "4", "5", NULL, variables);
    if (IS("fexecve")) fexecve(open(program, O_RDONLY), words, variables);
    if (IS("execveat")) syscall(SYS_execveat, AT_FDCWD, program, words, variables, 0);
    if (IS("syscall")) syscall(SYS_execve, program, words, variables);
    if (IS("nothing")) execve(program, words, NULL);
    if (IS("system")) clearenv(), _exit(WEXITSTATUS(system(command(program))));
    if (IS("popen")) clearenv(), _exit(copied(popen(command(program), "r")));
}

int main(int count, char **words) {
    const char *way = words[1];
    char *variables[] = {"A=1", count > 3 ? words[3] : NULL, NULL};
    char *arguments[] = {words[2], "x", NULL};
    pid_t child = 0;
    int error = 0, status = 0;
    if (IS("posix_spawn")) error = posix_spawn(&child, words[2], NULL, NULL, arguments, variables);
    else if (IS("posix_spawnp"))
        error = posix_spawnp(&child, words[2], NULL, NULL, arguments, variables);
    else if (strncmp(way, "vfork ", 6) == 0) {
        child = vfork();
        if (child == 0) {
            run(way + 6, words[2], arguments, variables);
            _exit(errno == EACCES ? 126 : 127);
        }
    } else {
        child = fork();
        if (child == 0) {
            run(way, words[2], arguments, variables);
            _exit(errno == EACCES ? 126 : 127);
        }
    }
    if (error) return error == EACCES ? 126 : 127;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}
