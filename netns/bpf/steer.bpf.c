// SPDX-License-Identifier: Apache-2.0
//
// The sidecar's program. Routing delivers locally what would leave by the default route; this hands
// it to the proxy, whatever its destination. What is meant for the namespace itself is left alone.

#include "sk_lookup.h"

// Name servers in 127/8 that stand for the target's: address to port, or to 0 for every port.
MAP(MAP_HASH, struct address, u32, 16) nameservers SEC(".maps");
// Where the proxy's own queries to these name servers come from.
MAP(MAP_HASH, struct address, u32, 16) exempt SEC(".maps");

INLINE int is_nameserver(struct bpf_sk_lookup *ctx, const struct address *local)
{
	u32 *port = map_lookup(&nameservers, local);
	struct address remote;

	if (!port || (*port && *port != ctx->local_port))
		return 0;
	remote_address(ctx, &remote);
	return !map_lookup(&exempt, &remote);
}

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	struct address local;

	local_address(ctx, &local);
	if (is_direct(ctx, &local))
		return SK_DROP;
	if (is_loopback(&local))
		return is_nameserver(ctx, &local) ? hand_over(ctx) : SK_PASS;
	if (map_lookup(&own, &local))
		return SK_PASS;
	return hand_over(ctx);
}

char _license[] SEC("license") = "Apache-2.0";
