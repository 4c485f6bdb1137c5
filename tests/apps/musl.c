/* A C program linked to musl's loader.
 *
 *	app serve PORT NAME     answers HTTP with the name and both addresses
 *	app get HOST PORT       prints the answer's body
 *	app resolve NAME        prints the addresses
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static void print_address(char *text, size_t size, const struct sockaddr_in *address)
{
	char ip[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &address->sin_addr, ip, sizeof ip);
	snprintf(text, size, "%s:%d", ip, ntohs(address->sin_port));
}

static void answer(int client, const struct sockaddr_in *peer, const char *name)
{
	char request[2048], body[512], head[128], from[64], at[64];
	struct sockaddr_in local;
	socklen_t size = sizeof local;

	if (read(client, request, sizeof request) < 0)
		return;
	getsockname(client, (struct sockaddr *)&local, &size);
	print_address(from, sizeof from, peer);
	print_address(at, sizeof at, &local);
	snprintf(body, sizeof body, "{\"name\":\"%s\",\"peer\":\"%s\",\"local\":\"%s\"}\n", name, from, at);
	snprintf(head, sizeof head,
		"HTTP/1.0 200 OK\r\ncontent-length: %zu\r\nconnection: close\r\n\r\n", strlen(body));
	write(client, head, strlen(head));
	write(client, body, strlen(body));
	printf("request %s\n", from);
}

static int serve(int port, const char *name)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64))
		return fail("listen");
	for (;;) {
		struct sockaddr_in peer;
		socklen_t size = sizeof peer;
		int client = accept(listener, (struct sockaddr *)&peer, &size);

		if (client < 0)
			return fail("accept");
		answer(client, &peer, name);
		close(client);
	}
}

static struct addrinfo *look_up(const char *host, const char *port)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found;
	int error = getaddrinfo(host, port, &hints, &found);

	if (!error)
		return found;
	fprintf(stderr, "%s: %s\n", host, gai_strerror(error));
	exit(1);
}

static int get(const char *host, const char *port)
{
	static const char request[] = "GET / HTTP/1.0\r\nhost: app\r\n\r\n";
	struct addrinfo *found = look_up(host, port);
	int server = socket(AF_INET, SOCK_STREAM, 0);
	char text[4096], *body;
	size_t length = 0;
	ssize_t count;

	if (connect(server, found->ai_addr, found->ai_addrlen))
		return fail("connect");
	write(server, request, strlen(request));
	while ((count = read(server, text + length, sizeof text - 1 - length)) > 0)
		length += count;
	text[length] = 0;
	body = strstr(text, "\r\n\r\n");
	fputs(body ? body + 4 : text, stdout);
	return 0;
}

static int resolve(const char *name)
{
	struct addrinfo *found;
	char ip[INET_ADDRSTRLEN];

	for (found = look_up(name, NULL); found; found = found->ai_next) {
		inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, ip, sizeof ip);
		puts(ip);
	}
	return 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && !strcmp(argv[1], "serve"))
		return serve(atoi(argv[2]), argv[3]);
	if (argc == 4 && !strcmp(argv[1], "get"))
		return get(argv[2], argv[3]);
	if (argc == 3 && !strcmp(argv[1], "resolve"))
		return resolve(argv[2]);
	fputs("app serve PORT NAME | get HOST PORT | resolve NAME\n", stderr);
	return 2;
}
