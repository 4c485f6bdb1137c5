/* What a program sees of its sockets, a line for each thing: run with the layer by main.rs. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MSG_FASTOPEN /* glibc 2.17 */
#define MSG_FASTOPEN 0x20000000
#endif

typedef struct { struct sockaddr_storage at; socklen_t len; } address;

static address parse(const char *ip, int port) {
  address made = {0};
  struct sockaddr_in *v4 = (void *)&made.at;
  struct sockaddr_in6 *v6 = (void *)&made.at;
  if (inet_pton(AF_INET, ip, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET, v4->sin_port = htons(port), made.len = sizeof *v4;
  } else {
    inet_pton(AF_INET6, ip, &v6->sin6_addr);
    v6->sin6_family = AF_INET6, v6->sin6_port = htons(port), made.len = sizeof *v6;
  }
  return made;
}

static const char *text(const address *shown) {
  static char line[4][128];
  static int next;
  char ip[64] = "?";
  char *place = line[next++ % 4];
  const struct sockaddr_in *v4 = (const void *)&shown->at;
  const struct sockaddr_in6 *v6 = (const void *)&shown->at;
  if (shown->at.ss_family == AF_INET) {
    inet_ntop(AF_INET, &v4->sin_addr, ip, sizeof ip);
    snprintf(place, 128, "%s:%d/%d", ip, ntohs(v4->sin_port), (int)shown->len);
  } else if (shown->at.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &v6->sin6_addr, ip, sizeof ip);
    snprintf(place, 128, "[%s]:%d/%d", ip, ntohs(v6->sin6_port), (int)shown->len);
  } else {
    snprintf(place, 128, "family %d/%d", shown->at.ss_family, (int)shown->len);
  }
  return place;
}

static const char *error(void) {
  switch (errno) {
    case EACCES: return "EACCES";
    case EADDRINUSE: return "EADDRINUSE";
    case EADDRNOTAVAIL: return "EADDRNOTAVAIL";
    case EAFNOSUPPORT: return "EAFNOSUPPORT";
    case EALREADY: return "EALREADY";
    case EBADF: return "EBADF";
    case ECONNREFUSED: return "ECONNREFUSED";
    case ECONNRESET: return "ECONNRESET";
    case EFAULT: return "EFAULT";
    case EHOSTUNREACH: return "EHOSTUNREACH";
    case EINPROGRESS: return "EINPROGRESS";
    case EINTR: return "EINTR";
    case EINVAL: return "EINVAL";
    case EISCONN: return "EISCONN";
    case EMFILE: return "EMFILE";
    case ENETUNREACH: return "ENETUNREACH";
    case ENOTCONN: return "ENOTCONN";
    case EOPNOTSUPP: return "EOPNOTSUPP";
    default: return strerror(errno);
  }
}

/* Says what a call returned, and why if it failed. */
static void say(const char *what, int result) {
  printf("%s %d %s\n", what, result, result < 0 ? error() : "-");
}

static const char *local(int fd) {
  address seen = {.len = sizeof seen.at};
  return getsockname(fd, (void *)&seen.at, &seen.len) ? error() : text(&seen);
}

static const char *peer(int fd) {
  address seen = {.len = sizeof seen.at};
  return getpeername(fd, (void *)&seen.at, &seen.len) ? error() : text(&seen);
}

static int any_port(int kind, const char *ip) {
  return socket(strchr(ip, ':') ? AF_INET6 : AF_INET, kind, 0);
}

static int listener(const char *ip, int port) {
  int fd = any_port(SOCK_STREAM, ip);
  address own = parse(ip, port);
  if (bind(fd, (void *)&own.at, own.len) || listen(fd, 128)) {
    printf("bind %s\n", error());
    exit(0);
  }
  printf("listens %s\n", local(fd));
  fflush(stdout);
  return fd;
}

static void show(int fd, address *seen) {
  printf("accepted %s peer %s local %s\n", text(seen), peer(fd), local(fd));
  fflush(stdout);
}

/* Accepts in one way after the other, one connection each. */
static void serve(const char *ip, int port) {
  int fd = listener(ip, port);
  for (int way = 0; way < 6; way++) {
    address seen = {.len = sizeof seen.at};
    errno = 77;
    int got = way == 0   ? accept(fd, (void *)&seen.at, &seen.len)
              : way == 1 ? accept4(fd, (void *)&seen.at, &seen.len, SOCK_CLOEXEC)
              : way == 2 ? accept(fd, NULL, NULL)
              : way == 3 ? (seen.len = 5, accept(fd, (void *)&seen.at, &seen.len))
              : way == 4 ? accept4(fd, (void *)&seen.at, &seen.len, SOCK_NONBLOCK)
                         : accept(fd, (void *)&seen.at, &seen.len);
    if (errno != 77) printf("errno became %s\n", error());
    if (way == 3) printf("cut %d/%d\n", seen.at.ss_family, (int)seen.len), seen.len = 0;
    if (way == 2 || way == 3) seen.len = sizeof seen.at, getpeername(got, (void *)&seen.at, &seen.len);
    show(got, &seen);
    close(got);
  }
}

static int outcome(int fd) {
  int value = -1;
  socklen_t len = sizeof value;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &len);
  return value;
}

static void talk(int fd) {
  char bytes[64] = "";
  if (write(fd, "ping", 4) != 4 || read(fd, bytes, sizeof bytes - 1) < 0) puts(error());
  printf("heard %s\n", bytes);
}

static void call(const char *ip, int port, int flags, int protocol) {
  address far = parse(ip, port);
  int fd = socket(far.at.ss_family, SOCK_STREAM | flags, protocol);
  errno = 77;
  int result = connect(fd, (void *)&far.at, far.len);
  printf("connect %d %s\n", result, result ? error() : errno == 77 ? "-" : "errno changed");
  if (result && flags) {
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    say("again", connect(fd, (void *)&far.at, far.len));
    poll(&ready, 1, 10000);
    errno = outcome(fd);
    printf("outcome %s\n", errno ? error() : "0");
    result = errno;
    printf("then %d\n", outcome(fd));
  }
  if (result) {
    printf("peer %s\n", peer(fd));
  } else {
    fcntl(fd, F_SETFL, 0);
    printf("peer %s local %s\n", peer(fd), local(fd));
    printf("once more %d\n", connect(fd, (void *)&far.at, far.len));
    talk(fd);
  }
  close(fd);
}

/* One socket: a failure, and then another try. */
static void retry(const char *bad, const char *good, int port) {
  address far = parse(bad, port), near = parse(good, port);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  say("first", connect(fd, (void *)&far.at, far.len));
  say("second", connect(fd, (void *)&near.at, near.len));
  printf("peer %s\n", peer(fd));
  talk(fd);
}

/* Sockets that were bound before. */
static void from(const char *own, int own_port, const char *ip, int port) {
  address here = parse(own, own_port), far = parse(ip, port);
  int fd = socket(far.at.ss_family, SOCK_STREAM, 0);
  if (bind(fd, (void *)&here.at, here.len)) printf("bind %s\n", error());
  say("connect", connect(fd, (void *)&far.at, far.len));
  printf("peer %s local %s\n", peer(fd), local(fd));
  talk(fd);
}

static void datagrams(const char *ip, int port) {
  address far = parse(ip, port), seen = {.len = sizeof seen.at};
  char bytes[64] = "", one[8] = "one", two[8] = "two";
  int fd = socket(far.at.ss_family, SOCK_DGRAM, 0);
  if (sendto(fd, "a", 1, 0, (void *)&far.at, far.len) != 1) printf("sendto %s\n", error());
  recvfrom(fd, bytes, sizeof bytes, 0, (void *)&seen.at, &seen.len);
  printf("recvfrom %s %s\n", bytes, text(&seen));
  struct iovec parts[2] = {{one, 3}, {two, 3}};
  address names[2] = {far, far};
  struct mmsghdr out[2] = {0}, in[2] = {0};
  char got[2][64] = {0};
  for (int at = 0; at < 2; at++) {
    out[at].msg_hdr = (struct msghdr){.msg_name = &names[at].at, .msg_namelen = far.len, .msg_iov = &parts[at], .msg_iovlen = 1};
  }
  printf("sendmsg %d\n", (int)sendmsg(fd, &out[0].msg_hdr, 0));
  struct iovec room = {bytes, sizeof bytes};
  memset(&seen, 0, sizeof seen);
  struct msghdr msg = {.msg_name = &seen.at, .msg_namelen = sizeof seen.at, .msg_iov = &room, .msg_iovlen = 1};
  memset(bytes, 0, sizeof bytes);
  recvmsg(fd, &msg, 0);
  seen.len = msg.msg_namelen;
  printf("recvmsg %s %s\n", bytes, text(&seen));
  printf("sendmmsg %d", sendmmsg(fd, out, 2, 0));
  printf(" %d %d\n", out[0].msg_len, out[1].msg_len);
  struct iovec rooms[2] = {{got[0], 64}, {got[1], 64}};
  for (int at = 0; at < 2; at++) {
    memset(&names[at], 0, sizeof names[at]);
    in[at].msg_hdr = (struct msghdr){.msg_name = &names[at].at, .msg_namelen = sizeof names[at].at, .msg_iov = &rooms[at], .msg_iovlen = 1};
  }
  int count = 0;
  while (count < 2) count += recvmmsg(fd, in + count, 2 - count, MSG_WAITFORONE, NULL);
  for (int at = 0; at < 2; at++) {
    names[at].len = in[at].msg_hdr.msg_namelen;
    printf("recvmmsg %s %s\n", got[at], text(&names[at]));
  }
  say("connect", connect(fd, (void *)&far.at, far.len));
  printf("peer %s local %.9s\n", peer(fd), local(fd));
  talk(fd);
}

/* Answers datagrams to whom they came from. */
static void echo(const char *ip, int port) {
  int fd = any_port(SOCK_DGRAM, ip);
  address own = parse(ip, port), seen = {.len = sizeof seen.at};
  if (bind(fd, (void *)&own.at, own.len)) printf("bind %s\n", error());
  printf("listens %s\n", local(fd));
  fflush(stdout);
  char bytes[64] = "";
  int len = recvfrom(fd, bytes, sizeof bytes, 0, (void *)&seen.at, &seen.len);
  printf("from %s: %s\n", text(&seen), bytes);
  if (sendto(fd, bytes, len, 0, (void *)&seen.at, seen.len) != len) printf("sendto %s\n", error());
}

/* A client and a server of one program meet on loopback. */
static void meet(const char *server, const char *client, int port) {
  int fd = listener(server, port);
  address near = parse(client, port), seen = {.len = sizeof seen.at};
  int one = any_port(SOCK_STREAM, client);
  if (connect(one, (void *)&near.at, near.len)) printf("connect %s\n", error());
  int other = accept(fd, (void *)&seen.at, &seen.len);
  const char *own = local(one);
  printf("%s\n", strcmp(own, text(&seen)) ? "strangers" : "the same");
  printf("peer %s local %s\n", peer(one), local(other));
}

static void taken(int port) {
  int one = listener("0.0.0.0", port), yes = 1;
  address own = parse("0.0.0.0", port);
  int two = socket(AF_INET, SOCK_STREAM, 0);
  say("second", bind(two, (void *)&own.at, own.len));
  close(one);
  say("after", bind(two, (void *)&own.at, own.len));
  close(two);
  int shared[2];
  for (int at = 0; at < 2; at++) {
    shared[at] = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(shared[at], SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes);
    say("shared", bind(shared[at], (void *)&own.at, own.len));
    puts(local(shared[at]));
  }
}

static void *cancelled(void *fd) {
  accept(*(int *)fd, NULL, NULL);
  return NULL;
}

static void cleaned(void *said) { puts(said); }

static void *cancelled_with_cleanup(void *fd) {
  pthread_cleanup_push(cleaned, "cleaned up");
  cancelled(fd);
  pthread_cleanup_pop(0);
  return NULL;
}

static void cancel(int port) {
  int fd = listener("0.0.0.0", port);
  pthread_t thread;
  void *result = NULL;
  pthread_create(&thread, NULL, cancelled_with_cleanup, &fd);
  usleep(100000);
  pthread_cancel(thread);
  pthread_join(thread, &result);
  puts(result == PTHREAD_CANCELED ? "cancelled" : "went on");
}

static void interrupted(int signal) { (void)signal; }

static void interrupt(int port) {
  int fd = listener("0.0.0.0", port);
  struct sigaction action = {.sa_handler = interrupted};
  sigaction(SIGALRM, &action, NULL);
  ualarm(50000, 0);
  say("accept", accept(fd, NULL, NULL));
}

/* What no signal interrupts without us goes on in a storm of them; what one does may be gone on with. */
static void storm(const char *ip, int port) {
  struct sigaction action = {.sa_handler = interrupted};
  address far = parse(ip, 80);
  int bound = 0, listened = 0, connected = 0;
  sigaction(SIGALRM, &action, NULL);
  ualarm(300, 300);
  for (int round = 0; round < 200; round++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address own = parse("0.0.0.0", port + round);
    bound += bind(fd, (void *)&own.at, own.len) == 0;
    listened += listen(fd, 8) == 0;
    close(fd);
  }
  for (int round = 0; round < 20; round++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), error = 0;
    socklen_t len = sizeof error;
    struct pollfd waited = {fd, POLLOUT, 0};
    if (connect(fd, (void *)&far.at, far.len) < 0 && errno == EINTR) {
      while (poll(&waited, 1, 5000) < 0 && errno == EINTR) continue;
      getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
    }
    address seen = {.len = sizeof seen.at};
    connected += !error && getpeername(fd, (void *)&seen.at, &seen.len) == 0;
    close(fd);
  }
  ualarm(0, 0);
  printf("bound %d listened %d connected %d\n", bound, listened, connected);
}

/* With no descriptor to spare. */
static void full(int port, const char *ip) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), next = dup(fd);
  close(next);
  struct rlimit most = {next, next};
  setrlimit(RLIMIT_NOFILE, &most);
  address own = parse("0.0.0.0", port), far = parse(ip, port);
  say("bind", bind(fd, (void *)&own.at, own.len));
  say("connect", connect(fd, (void *)&far.at, far.len));
}

/* The numbers of descriptors are what they are without a layer. */
static void numbers(const char *ip, int port) {
  close(0);
  int first = socket(AF_INET, SOCK_STREAM, 0);
  address far = parse(ip, port), own = parse("0.0.0.0", port);
  int result = connect(first, (void *)&far.at, far.len);
  int second = socket(AF_INET, SOCK_STREAM, 0);
  int bound = bind(second, (void *)&own.at, own.len);
  printf("%d %d %d %d\n", first, result, second, bound);
}

/* A child of vfork is the first that needs the proxy. */
static void forks(const char *ip, int port) {
  address far = parse(ip, port);
  int status;
  pid_t child = vfork();
  if (child == 0) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    _exit(connect(fd, (void *)&far.at, far.len) ? 1 : 0);
  }
  waitpid(child, &status, 0);
  printf("vfork %d\n", WEXITSTATUS(status));
  int fd = listener("0.0.0.0", port);
  if (fork() == 0) {
    printf("child %s\n", local(fd));
    fflush(stdout);
    _exit(0);
  }
  wait(&status);
}

static void odd(const char *ip, int port) {
  address far = parse(ip, port);
  int fd = socket(AF_INET, SOCK_STREAM, 0), unix_fd = socket(AF_UNIX, SOCK_STREAM, 0);
  say("null", bind(fd, NULL, 16));
  say("short", connect(fd, (void *)&far.at, 7));
  say("bad", bind(-1, (void *)&far.at, far.len));
  socklen_t len = -1;
  say("negative", getsockname(fd, (void *)&far.at, &len));
  printf("unnamed %s\n", local(unix_fd));
  far = parse(ip, port);
  say("fast open", (int)sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&far.at, far.len));
  far.at.ss_family = AF_UNSPEC;
  printf("unspec %d\n", connect(fd, (void *)&far.at, far.len));
  address v6 = parse("::", port);
  say("family", bind(fd, (void *)&v6.at, v6.len));
  address zero = parse("127.0.0.1", 0);
  bind(fd, (void *)&zero.at, zero.len);
  printf("any port %.10s\n", local(fd));
}

static int accepted;
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;

static void *worker(void *fd) {
  for (;;) {
    address seen = {.len = sizeof seen.at};
    int got = accept(*(int *)fd, (void *)&seen.at, &seen.len);
    if (got < 0) return NULL;
    if (((struct sockaddr_in *)&seen.at)->sin_addr.s_addr != inet_addr("10.9.0.77")) puts("a stranger");
    close(got);
    pthread_mutex_lock(&counting);
    if (++accepted == 500) puts("all"), fflush(stdout), exit(0);
    pthread_mutex_unlock(&counting);
  }
}

static void threads(int port) {
  static pthread_t all[64];
  int fd = listener("0.0.0.0", port);
  for (int at = 0; at < 64; at++) pthread_create(&all[at], NULL, worker, &fd);
  pthread_join(all[0], NULL);
}

int main(int count, char **words) {
  const char *what = words[1], *ip = count > 2 ? words[2] : "";
  int port = count > 3 ? atoi(words[3]) : 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (!strcmp(what, "serve")) serve(ip, port);
  if (!strcmp(what, "call")) call(ip, port, 0, 0);
  if (!strcmp(what, "call-later")) call(ip, port, SOCK_NONBLOCK, 0);
  if (!strcmp(what, "call-mptcp")) call(ip, port, SOCK_NONBLOCK, 262);
  if (!strcmp(what, "retry")) retry(ip, words[4], port);
  if (!strcmp(what, "from")) from(words[4], atoi(words[5]), ip, port);
  if (!strcmp(what, "datagrams")) datagrams(ip, port);
  if (!strcmp(what, "echo")) echo(ip, port);
  if (!strcmp(what, "meet")) meet(ip, words[4], port);
  if (!strcmp(what, "taken")) taken(port);
  if (!strcmp(what, "cancel")) cancel(port);
  if (!strcmp(what, "interrupt")) interrupt(port);
  if (!strcmp(what, "storm")) storm(ip, port);
  if (!strcmp(what, "full")) full(port, ip);
  if (!strcmp(what, "numbers")) numbers(ip, port);
  if (!strcmp(what, "forks")) forks(ip, port);
  if (!strcmp(what, "odd")) odd(ip, port);
  if (!strcmp(what, "threads")) threads(port);
  return 0;
}
