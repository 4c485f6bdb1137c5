// SPDX-License-Identifier: Apache-2.0
//
// What the sk_lookup programs share: the kernel's interface as far as it is used (so that neither
// kernel headers nor libbpf are needed), and the sockets that a lookup can be answered with.

#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define HOST32(value) __builtin_bswap32(value)
#define NET16(value) __builtin_bswap16(value)

enum { SK_DROP = 0, SK_PASS = 1 };
enum { AF_INET = 2, AF_INET6 = 10 };
enum { IPPROTO_ICMP = 1, IPPROTO_TCP = 6, IPPROTO_UDP = 17 };
enum { MAP_HASH = 1, MAP_SOCKMAP = 15 };

// The lookup's context. `remote` is who sent the packet, `local` where it was sent to. Addresses
// and remote_port are in network byte order, local_port is in the host's.
struct bpf_sk_lookup {
	u64 sk;
	u32 family;
	u32 protocol;
	u32 remote_ip4;
	u32 remote_ip6[4];
	u32 remote_port;
	u32 local_ip4;
	u32 local_ip6[4];
	u32 local_port;
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const sk_release)(void *sk) = (void *)86;
static long (*const sk_assign)(struct bpf_sk_lookup *ctx, void *sk, u64 flags) = (void *)124;

#define MAP(kind, key_type, value_type, entries)                                                    \
	struct {                                                                                     \
		int (*type)[kind];                                                                   \
		key_type *key;                                                                       \
		value_type *value;                                                                   \
		int (*max_entries)[entries];                                                         \
	}

// An IPv6 address, or an IPv4 one in its mapped form.
struct address {
	u32 words[4];
};

// A protocol and a port, both in the host's byte order.
struct endpoint {
	u16 protocol;
	u16 port;
};

// Index of a socket in `sockets`. The latter two answer nobody.
enum { TCP4, UDP4, TCP6, UDP6, SILENT4, SILENT6, SOCKETS };

MAP(MAP_SOCKMAP, u32, u32, SOCKETS) sockets SEC(".maps");
// The ports that the sockets of `sockets` are bound to, on 127.0.0.1 and ::1.
MAP(MAP_HASH, struct endpoint, u32, SOCKETS) bound SEC(".maps");
// The namespace's own addresses.
MAP(MAP_HASH, struct address, u32, 256) own SEC(".maps");

INLINE void mapped(struct address *address, u32 ip4)
{
	address->words[0] = 0;
	address->words[1] = 0;
	address->words[2] = HOST32(0xffff);
	address->words[3] = ip4;
}

// The context may only be read four bytes at a time: `volatile` keeps the compiler from joining.
INLINE void local_address(struct bpf_sk_lookup *ctx, struct address *address)
{
	volatile struct bpf_sk_lookup *words = ctx;

	if (ctx->family == AF_INET) {
		mapped(address, ctx->local_ip4);
		return;
	}
	address->words[0] = words->local_ip6[0];
	address->words[1] = words->local_ip6[1];
	address->words[2] = words->local_ip6[2];
	address->words[3] = words->local_ip6[3];
}

INLINE void remote_address(struct bpf_sk_lookup *ctx, struct address *address)
{
	volatile struct bpf_sk_lookup *words = ctx;

	if (ctx->family == AF_INET) {
		mapped(address, ctx->remote_ip4);
		return;
	}
	address->words[0] = words->remote_ip6[0];
	address->words[1] = words->remote_ip6[1];
	address->words[2] = words->remote_ip6[2];
	address->words[3] = words->remote_ip6[3];
}

INLINE int is_loopback(const struct address *address)
{
	if (address->words[0] || address->words[1])
		return 0;
	if (address->words[2] == HOST32(0xffff))
		return (address->words[3] & HOST32(0xff000000)) == HOST32(0x7f000000);
	return address->words[2] == 0 && address->words[3] == HOST32(1);
}

INLINE struct endpoint local_endpoint(struct bpf_sk_lookup *ctx)
{
	struct endpoint endpoint = { .protocol = ctx->protocol, .port = ctx->local_port };

	return endpoint;
}

// Whether somebody talks to one of `sockets` by its own address instead of being handed over.
INLINE int is_direct(struct bpf_sk_lookup *ctx, const struct address *local)
{
	struct endpoint endpoint = local_endpoint(ctx);

	return is_loopback(local) && map_lookup(&bound, &endpoint);
}

// Answers the lookup with one of `sockets`, if it is there.
INLINE int answer_with(struct bpf_sk_lookup *ctx, u32 index)
{
	void *sk = map_lookup(&sockets, &index);

	if (sk) {
		sk_assign(ctx, sk, 0);
		sk_release(sk);
	}
	return SK_PASS;
}

// The same with the socket of its family and protocol.
INLINE int hand_over(struct bpf_sk_lookup *ctx)
{
	u32 index = ctx->family == AF_INET ? TCP4 : TCP6;

	return answer_with(ctx, ctx->protocol == IPPROTO_UDP ? index + 1 : index);
}
