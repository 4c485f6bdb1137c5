// SPDX-License-Identifier: Apache-2.0
//
// The agent's program. New connections to the chosen ports are handed to the agent, unless the
// target talks to itself. Behind the proxy of a service mesh the target's clients look as if it did.

#include "sk_lookup.h"

// The chosen ports.
MAP(MAP_HASH, struct endpoint, u32, 1024) ports SEC(".maps");
// Whose connections are never taken.
MAP(MAP_HASH, struct address, u32, 64) spared SEC(".maps");
// What is switched on.
MAP(MAP_HASH, u32, u32, 4) options SEC(".maps");

enum { MESH = 0 };

// Whether the connection may be one that a mesh's proxy brings: they redirect TCP alone.
INLINE int is_by_mesh(struct bpf_sk_lookup *ctx)
{
	u32 option = MESH;

	return ctx->protocol == IPPROTO_TCP && map_lookup(&options, &option);
}

SEC("sk_lookup")
int steal(struct bpf_sk_lookup *ctx)
{
	struct endpoint endpoint = local_endpoint(ctx);
	struct address local, remote;

	local_address(ctx, &local);
	if (is_direct(ctx, &local))
		return SK_DROP;
	if (!map_lookup(&ports, &endpoint))
		return SK_PASS;
	remote_address(ctx, &remote);
	if (map_lookup(&spared, &remote))
		return SK_PASS;
	if ((is_loopback(&remote) || map_lookup(&own, &remote)) && !is_by_mesh(ctx))
		return SK_PASS;
	return hand_over(ctx);
}

char _license[] SEC("license") = "Apache-2.0";
