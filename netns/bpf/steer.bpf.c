// SPDX-License-Identifier: Apache-2.0
//
// The sidecar's programs. Routing delivers locally what would leave by the default route; `steer`
// hands it to the proxy, whatever its destination. What is meant for the namespace itself is left
// alone. A connection is first given to a listener that answers nobody, so that the app's connect
// waits; `call` shows the proxy its SYN, and once the far side has answered, the proxy admits it.

#include "sk_lookup.h"

// A connection as it is on the wire.
struct flow {
	struct address app;
	struct address to;
	u16 app_port;
	u16 to_port;
};

// Name servers in 127/8 that stand for the target's: address to port, or to 0 for every port.
MAP(MAP_HASH, struct address, u32, 16) nameservers SEC(".maps");
// Where the proxy's own queries to these name servers come from.
MAP(MAP_HASH, struct address, u32, 16) exempt SEC(".maps");
// Connections of which the far side has answered: to the moment at which one was given to a listener,
// or to 0.
MAP(MAP_HASH, struct flow, u32, 8192) admitted SEC(".maps");

static u64 (*const nanoseconds)(void) = (void *)5;

// Moments are of about a millisecond. What the app sends after its SYN comes sooner; another SYN later.
enum { MOMENT = 20, BEGINNING = 64 };

// Whether what goes from one address to another is the proxy's.
INLINE int is_steered(const struct address *from, const struct address *to, u16 port)
{
	u32 *only;

	if (!is_loopback(to))
		return !map_lookup(&own, to);
	only = map_lookup(&nameservers, to);
	if (!only || (*only && *only != port))
		return 0;
	return !map_lookup(&exempt, from);
}

// Whether a connection that was just given to a listener is looked up once more: while one processor
// replaces the half-open socket by the whole one, another finds neither (inet_ehash_insert() up to
// Linux 6.18), and the listener would answer the app's first bytes with a reset.
INLINE int is_stray(u32 *given)
{
	u32 moment = nanoseconds() >> MOMENT;

	if (*given && moment - *given < BEGINNING)
		return 1;
	*given = moment;
	return 0;
}

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	struct flow flow = {};
	u32 *given;

	local_address(ctx, &flow.to);
	if (is_direct(ctx, &flow.to))
		return SK_DROP;
	remote_address(ctx, &flow.app);
	if (!is_steered(&flow.app, &flow.to, ctx->local_port))
		return SK_PASS;
	flow.app_port = ctx->remote_port;
	flow.to_port = NET16(ctx->local_port);
	if (ctx->protocol != IPPROTO_TCP)
		return hand_over(ctx);
	given = map_lookup(&admitted, &flow);
	if (!given || is_stray(given))
		return answer_with(ctx, ctx->family == AF_INET ? SILENT4 : SILENT6);
	return hand_over(ctx);
}

// The head of the kernel's struct of that name.
struct __sk_buff {
	u32 len;
	u32 pkt_type;
	u32 mark;
	u32 queue_mapping;
	u32 protocol;
};

enum { LEAVE = 0, COPY = -1 };
enum { FROM_NETWORK_HEADER = 1 };
enum { ETH_IPV4 = 0x0800, ETH_IPV6 = 0x86dd };
enum { SYN = 2, RST = 4, ACK = 16 };
enum { ECHO = 8 };

static long (*const load)(const struct __sk_buff *skb, u32 at, void *to, u32 len, u32 from) = (void *)68;

// Where TCP or ICMP begins; 0 if the packet carries none, or not from its beginning on.
INLINE u32 read_ip(const struct __sk_buff *skb, struct flow *flow, u8 *proto)
{
	struct {
		u32 head[2];
		u8 hops;
		u8 proto;
		u16 sum;
		u32 from;
		u32 to;
	} v4;
	struct {
		u32 head;
		u16 len;
		u8 next;
		u8 hops;
		struct address from;
		struct address to;
	} v6;

	if (skb->protocol == NET16(ETH_IPV4)) {
		if (load(skb, 0, &v4, sizeof(v4), FROM_NETWORK_HEADER))
			return 0;
		if (v4.proto != IPPROTO_TCP && v4.proto != IPPROTO_ICMP)
			return 0;
		*proto = v4.proto;
		mapped(&flow->app, v4.from);
		mapped(&flow->to, v4.to);
		if (HOST32(v4.head[1]) & 0x1fff)
			return 0;
		return (HOST32(v4.head[0]) >> 24 & 15) * 4;
	}
	if (skb->protocol != NET16(ETH_IPV6))
		return 0;
	if (load(skb, 0, &v6, sizeof(v6), FROM_NETWORK_HEADER))
		return 0;
	if (v6.next != IPPROTO_TCP)
		return 0;
	*proto = v6.next;
	flow->app = v6.from;
	flow->to = v6.to;
	return 40;
}

// Chooses what the proxy sees of the loopback device: how each of its connections begins, and echo
// requests to elsewhere.
SEC("socket")
int call(struct __sk_buff *skb)
{
	struct flow flow = {};
	struct {
		u16 app_port;
		u16 to_port;
		u32 seq;
		u32 ack;
		u8 data_offset;
		u8 flags;
	} tcp;
	u8 proto = 0, type;
	u32 start = read_ip(skb, &flow, &proto);

	if (!start)
		return LEAVE;
	if (proto != IPPROTO_TCP) {
		if (load(skb, start, &type, 1, FROM_NETWORK_HEADER) || type != ECHO)
			return LEAVE;
		return is_steered(&flow.app, &flow.to, 0) ? COPY : LEAVE;
	}
	if (load(skb, start, &tcp, 14, FROM_NETWORK_HEADER))
		return LEAVE;
	if ((tcp.flags & (SYN | RST | ACK)) != SYN)
		return LEAVE;
	flow.app_port = tcp.app_port;
	flow.to_port = tcp.to_port;
	if (!is_steered(&flow.app, &flow.to, NET16(tcp.to_port)) || map_lookup(&admitted, &flow))
		return LEAVE;
	return COPY;
}

// Chooses what the listener that answers nobody gets: not what strays from an admitted connection,
// which it would reset. The app's kernel sends that again.
SEC("socket")
int stray(struct __sk_buff *skb)
{
	struct flow flow = {};
	struct {
		u16 app_port;
		u16 to_port;
	} tcp;
	u8 proto = 0;
	u32 start = read_ip(skb, &flow, &proto);

	if (!start || load(skb, start, &tcp, sizeof(tcp), FROM_NETWORK_HEADER))
		return COPY;
	flow.app_port = tcp.app_port;
	flow.to_port = tcp.to_port;
	return map_lookup(&admitted, &flow) ? LEAVE : COPY;
}

char _license[] SEC("license") = "Apache-2.0";
