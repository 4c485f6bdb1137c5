// SPDX-License-Identifier: Apache-2.0
//
// The filter of the capture's packet sockets: which packets are copied at all. It runs for every
// packet that comes in, so what is not wanted leaves early, and what says nothing new (an ACK
// without data, a connection that is not followed) is left out here, before anything is copied.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define NET16(value) __builtin_bswap16(value)
#define NET32(value) __builtin_bswap32(value)

#define MAP(kind, key_type, value_type, entries)                                                    \
	struct {                                                                                     \
		int (*type)[kind];                                                                   \
		key_type *key;                                                                       \
		value_type *value;                                                                   \
		int (*max_entries)[entries];                                                         \
	}

enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_LRU_HASH = 9 };
enum { LEAVE = 0, COPY = -1 };
enum { FROM_NETWORK_HEADER = 1 };
enum { LOOPBACK = 1 };
enum { TO_THIS_HOST = 0 };
enum { ETH_IPV4 = 0x0800, ETH_IPV6 = 0x86dd };
enum { MESH = 0 };
enum { LEFT = 0, LEFT_OUT = 1 };
enum { IP_TCP = 6, IP_UDP = 17 };
enum { IP6_HOP_BY_HOP = 0, IP6_ROUTING = 43, IP6_FRAGMENT = 44, IP6_DESTINATION = 60 };
enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

// The head of the kernel's struct of that name.
struct __sk_buff {
	u32 len;
	u32 pkt_type;
	u32 mark;
	u32 queue_mapping;
	u32 protocol;
	u32 vlan_present;
	u32 vlan_tci;
	u32 vlan_proto;
	u32 priority;
	u32 ingress_ifindex;
	u32 ifindex;
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const load)(const struct __sk_buff *skb, u32 at, void *to, u32 len, u32 from) = (void *)68;

// An IPv6 address, or an IPv4 one in its mapped form.
struct address {
	u32 words[4];
};

// A connection as it is on the wire.
struct flow {
	struct address client;
	struct address server;
	u16 client_port;
	u16 server_port;
};

// What is known of a connection: whether its handshake is under way, whether it is left out, and
// the sequence number after the last byte that was seen, so that user space can tell whether the
// end of what it has is the end of what there was.
enum { OPENING = 1, IGNORED = 2, FOLLOWED = 3 };

struct known {
	u32 state;
	u32 end;
};

struct packet {
	struct flow flow;
	u32 proto;
	// Where TCP or UDP begins, counted from the IP header, and where the packet ends; zero where
	// only the kernel knows, of packets beyond 64 KiB.
	u32 start;
	u32 end;
	// A fragment, or an extension header before TCP and UDP: user space has to look.
	u32 odd;
};

// A bit for every port, first those of TCP, then those of UDP.
MAP(MAP_ARRAY, u32, u64, 2048) ports SEC(".maps");
// The target's addresses.
MAP(MAP_HASH, struct address, u32, 256) own SEC(".maps");
// Whether a mesh's proxy brings the target's TCP clients, over the loopback device.
MAP(MAP_ARRAY, u32, u32, 1) options SEC(".maps");
// How many connections may still begin, and how many were left out because there were more.
MAP(MAP_ARRAY, u32, s64, 2) admission SEC(".maps");
// Connections whose SYN has passed, and those that are left out.
MAP(MAP_LRU_HASH, struct flow, struct known, 8192) flows SEC(".maps");

INLINE int read_v4(const struct __sk_buff *skb, struct packet *packet)
{
	struct {
		u8 version_and_len;
		u8 tos;
		u16 len;
		u16 id;
		u16 place;
		u8 ttl;
		u8 proto;
		u16 sum;
		u32 client;
		u32 server;
	} ip;

	if (load(skb, 0, &ip, 20, FROM_NETWORK_HEADER))
		return 0;
	packet->proto = ip.proto;
	packet->start = (ip.version_and_len & 15) * 4;
	packet->end = NET16(ip.len);
	packet->odd = (ip.place & NET16(0x3fff)) != 0;
	packet->flow.client.words[2] = NET32(0xffff);
	packet->flow.client.words[3] = ip.client;
	packet->flow.server.words[2] = NET32(0xffff);
	packet->flow.server.words[3] = ip.server;
	return 1;
}

INLINE int read_v6(const struct __sk_buff *skb, struct packet *packet)
{
	struct {
		u32 version;
		u16 len;
		u8 next;
		u8 hops;
		struct address client;
		struct address server;
	} ip;

	if (load(skb, 0, &ip, 40, FROM_NETWORK_HEADER))
		return 0;
	packet->proto = ip.next;
	packet->start = 40;
	packet->end = ip.len ? 40 + NET16(ip.len) : 0;
	packet->odd = ip.next == IP6_HOP_BY_HOP || ip.next == IP6_ROUTING ||
		      ip.next == IP6_FRAGMENT || ip.next == IP6_DESTINATION;
	packet->flow.client = ip.client;
	packet->flow.server = ip.server;
	return 1;
}

INLINE int is_copied(const struct packet *packet)
{
	u32 port = NET16(packet->flow.server_port);
	u32 word = (packet->proto == IP_UDP ? 1024 : 0) + port / 64;
	const u64 *bits = map_lookup(&ports, &word);

	return bits && (*bits >> (port % 64) & 1);
}

// TCP up to its flags.
struct tcp {
	u16 client_port;
	u16 server_port;
	u32 seq;
	u32 ack;
	u8 data_offset;
	u8 flags;
};

// Whether one more connection may begin.
INLINE int is_admitted(void)
{
	u32 key = LEFT;
	s64 *count = map_lookup(&admission, &key);

	if (!count)
		return 1;
	if (*count > 0) {
		__sync_fetch_and_add(count, -1);
		return 1;
	}
	key = LEFT_OUT;
	count = map_lookup(&admission, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

// Whether a segment says something that is not known yet.
INLINE int is_news(const struct packet *packet, const struct tcp *tcp, struct known *known)
{
	u32 begin = packet->start + (tcp->data_offset >> 4) * 4;
	u32 len = packet->end > begin ? packet->end - begin : 0;
	u32 end = NET32(tcp->seq) + len + ((tcp->flags & (FIN | RST)) != 0);

	if ((tcp->flags & (SYN | ACK)) == SYN) {
		struct known opening = {is_admitted() ? OPENING : IGNORED, end + 1};
		map_update(&flows, &packet->flow, &opening, 0);
		return opening.state == OPENING;
	}
	if (known && known->state == IGNORED)
		return 0;
	if (!len && packet->end && !(tcp->flags & (FIN | RST))) {
		if (!known || known->state == FOLLOWED)
			return 0;
		known->state = FOLLOWED;
		return 1;
	}
	if (known) {
		known->state = FOLLOWED;
		if ((int)(end - known->end) > 0)
			known->end = end;
	}
	return 1;
}

INLINE int is_wanted_tcp(const struct __sk_buff *skb, struct packet *packet)
{
	struct known *known;
	struct tcp tcp;

	if (load(skb, packet->start, &tcp, 14, FROM_NETWORK_HEADER))
		return 0;
	packet->flow.client_port = tcp.client_port;
	packet->flow.server_port = tcp.server_port;
	if (!is_copied(packet))
		return 0;
	known = map_lookup(&flows, &packet->flow);
	// Whose connection is known already is one of the target's own addresses.
	if (!known && !map_lookup(&own, &packet->flow.server))
		return 0;
	return is_news(packet, &tcp, known);
}

INLINE int is_wanted(const struct __sk_buff *skb, struct packet *packet)
{
	if (packet->odd)
		return map_lookup(&own, &packet->flow.server) != 0;
	if (packet->proto == IP_TCP)
		return is_wanted_tcp(skb, packet);
	if (packet->proto != IP_UDP)
		return 0;
	if (load(skb, packet->start, &packet->flow.client_port, 4, FROM_NETWORK_HEADER))
		return 0;
	return is_copied(packet) && map_lookup(&own, &packet->flow.server) != 0;
}

INLINE int is_behind_mesh(void)
{
	u32 option = MESH;
	const u32 *on = map_lookup(&options, &option);

	return on && *on;
}

SEC("socket")
int capture(struct __sk_buff *skb)
{
	struct packet packet = {};
	int by_loopback = skb->ifindex == LOOPBACK;
	int behind_mesh = is_behind_mesh();
	int read = 0;

	if (skb->pkt_type != TO_THIS_HOST || (by_loopback && !behind_mesh))
		return LEAVE;
	if (skb->protocol == NET16(ETH_IPV4))
		read = read_v4(skb, &packet);
	else if (skb->protocol == NET16(ETH_IPV6))
		read = read_v6(skb, &packet);
	if (behind_mesh && by_loopback != (packet.proto == IP_TCP))
		return LEAVE;
	return read && is_wanted(skb, &packet) ? COPY : LEAVE;
}

char _license[] SEC("license") = "Apache-2.0";
