//! Every flag of `docker run`: its grammar and where it goes.

/// One flag as docker's own parser knows it.
#[derive(Debug, PartialEq, Eq)]
pub struct FlagSpec {
    /// The long name, without dashes.
    pub long: &'static str,
    /// The one-letter name.
    pub short: Option<char>,
    /// Whether it takes a value.
    pub takes: Takes,
    /// Where it goes.
    pub place: Place,
}

/// Whether a flag takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// `--flag`, `--flag=true`, `--flag=false`.
    Nothing,
    /// `--flag VALUE`, `--flag=VALUE`.
    Value,
}

/// Where a flag goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To docker, as it is.
    Pass,
    /// To the sidecar, which owns the network namespace that the container joins: the reason.
    Sidecar(&'static str),
    /// To docker, and looked at on the way: the reason.
    Handled(&'static str),
    /// Nowhere: the reason, and what to do instead.
    Refused(&'static str, &'static str),
}

/// Why most flags pass.
const PASSES: &str = "docker does it as ever";
const PORTS: &str = "ports are published by the owner of the network";
const NETWORKS: &str = "the owner of the network joins it, and the container joins its owner";
const NAMES: &str = "a host has one name, the owner's of its network";
const FILES: &str = "/etc/hosts and resolv.conf are those of the owner of the network";

impl Place {
    /// Why it goes there.
    pub fn why(self) -> &'static str {
        match self {
            Self::Pass => PASSES,
            Self::Sidecar(why) | Self::Handled(why) | Self::Refused(why, _) => why,
        }
    }
}

/// One with a value, passed on.
pub(super) const fn value(long: &'static str) -> FlagSpec {
    FlagSpec { long, short: None, takes: Takes::Value, place: Place::Pass }
}

/// One without, passed on.
pub(super) const fn switch(long: &'static str) -> FlagSpec {
    FlagSpec { long, short: None, takes: Takes::Nothing, place: Place::Pass }
}

impl FlagSpec {
    pub(super) const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    const fn sidecar(mut self, why: &'static str) -> Self {
        self.place = Place::Sidecar(why);
        self
    }

    pub(super) const fn handled(mut self, why: &'static str) -> Self {
        self.place = Place::Handled(why);
        self
    }

    pub(super) const fn refused(mut self, why: &'static str, instead: &'static str) -> Self {
        self.place = Place::Refused(why, instead);
        self
    }
}

/// The flags of `docker run`, those of older and newer clients and the hidden ones included.
pub const RUN: &[FlagSpec] = &[
    value("add-host").sidecar(FILES),
    value("annotation"),
    value("attach").short('a'),
    value("blkio-weight"),
    value("blkio-weight-device"),
    value("cap-add"),
    value("cap-drop"),
    value("cgroup-parent"),
    value("cgroupns"),
    value("cidfile"),
    value("cpu-count"),
    value("cpu-percent"),
    value("cpu-period"),
    value("cpu-quota"),
    value("cpu-rt-period"),
    value("cpu-rt-runtime"),
    value("cpu-shares").short('c'),
    value("cpus"),
    value("cpuset-cpus"),
    value("cpuset-mems"),
    switch("detach").short('d').handled("the session goes on in the background"),
    value("detach-keys"),
    value("device"),
    value("device-cgroup-rule"),
    value("device-read-bps"),
    value("device-read-iops"),
    value("device-write-bps"),
    value("device-write-iops"),
    switch("disable-content-trust"),
    value("dns").sidecar(FILES),
    value("dns-opt").sidecar(FILES),
    value("dns-option").sidecar(FILES),
    value("dns-search").sidecar(FILES),
    value("domainname").sidecar(NAMES),
    value("entrypoint"),
    value("env").short('e').handled("its names are not taken from the target"),
    value("env-file").handled("its names are not taken from the target"),
    value("expose").sidecar(PORTS),
    value("gpus"),
    value("group-add"),
    value("health-cmd"),
    value("health-interval"),
    value("health-retries"),
    value("health-start-interval"),
    value("health-start-period"),
    value("health-timeout"),
    switch("help").handled("docker prints its own help"),
    value("hostname").short('h').sidecar(NAMES),
    switch("init"),
    switch("interactive").short('i'),
    value("io-maxbandwidth"),
    value("io-maxiops"),
    value("ip").sidecar(NETWORKS),
    value("ip6").sidecar(NETWORKS),
    value("ipc"),
    value("isolation"),
    value("kernel-memory"),
    value("label").short('l'),
    value("label-file"),
    value("link").sidecar(NETWORKS),
    value("link-local-ip").sidecar(NETWORKS),
    value("log-driver"),
    value("log-opt"),
    value("mac-address").sidecar(NETWORKS),
    value("memory").short('m'),
    value("memory-reservation"),
    value("memory-swap"),
    value("memory-swappiness"),
    value("mount"),
    value("name"),
    value("net").sidecar(NETWORKS),
    value("net-alias").sidecar(NETWORKS),
    value("network").sidecar(NETWORKS),
    value("network-alias").sidecar(NETWORKS),
    switch("no-healthcheck"),
    switch("oom-kill-disable"),
    value("oom-score-adj"),
    value("pid"),
    value("pids-limit"),
    value("platform"),
    switch("privileged"),
    value("publish").short('p').sidecar(PORTS),
    switch("publish-all").short('P').sidecar(PORTS),
    value("pull"),
    switch("quiet").short('q'),
    switch("read-only"),
    value("restart").handled("the session goes on from one start to the next"),
    switch("rm"),
    value("runtime"),
    value("security-opt"),
    value("shm-size"),
    switch("sig-proxy"),
    value("stop-signal"),
    value("stop-timeout"),
    value("storage-opt"),
    value("sysctl").handled("net.* goes to the sidecar, the rest to docker"),
    value("tmpfs"),
    switch("tty").short('t').handled("mirrord's own lines end as a raw terminal needs it"),
    value("ulimit"),
    switch("use-api-socket"),
    value("user").short('u'),
    value("userns"),
    value("uts"),
    value("volume").short('v'),
    value("volume-driver"),
    value("volumes-from"),
    value("workdir").short('w'),
];

/// docker's flags between `docker` and its command.
pub const GLOBAL: &[FlagSpec] = &[
    value("config").handled("where the contexts are"),
    value("context").short('c').handled("which engine"),
    switch("debug").short('D'),
    switch("help").handled("docker prints its own help"),
    value("host").short('H').handled("which engine"),
    value("log-level").short('l'),
    switch("tls").handled("which engine"),
    value("tlscacert").handled("which engine"),
    value("tlscert").handled("which engine"),
    value("tlskey").handled("which engine"),
    switch("tlsverify").handled("which engine"),
    switch("version").short('v').handled("docker prints its own version"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_stands_twice() {
        for table in [RUN, GLOBAL] {
            let long: BTreeSet<_> = table.iter().map(|flag| flag.long).collect();
            let short: Vec<_> = table.iter().filter_map(|flag| flag.short).collect();
            assert_eq!(long.len(), table.len());
            assert_eq!(short.iter().collect::<BTreeSet<_>>().len(), short.len());
        }
    }
}
