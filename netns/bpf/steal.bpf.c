// SPDX-License-Identifier: Apache-2.0
//
// The agent's program. New connections to the chosen ports are handed to the agent, unless the
// target talks to itself.

#include "sk_lookup.h"

// The chosen ports.
MAP(MAP_HASH, struct endpoint, u32, 1024) ports SEC(".maps");

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
	if (is_loopback(&remote) || map_lookup(&own, &remote))
		return SK_PASS;
	return hand_over(ctx);
}

char _license[] SEC("license") = "Apache-2.0";
