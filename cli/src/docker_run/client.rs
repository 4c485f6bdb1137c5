//! The command lines that run containers: docker's, and in what another one differs from it.

use super::network::{self, Attachment, FieldError};
use super::table::{FlagSpec, GLOBAL, RUN, switch, value};

/// A program that runs containers.
#[derive(Debug)]
pub struct Client {
    /// Its name.
    pub program: &'static str,
    /// Flags of its `run` that docker doesn't have, or that go elsewhere.
    more: &'static [FlagSpec],
    /// Flags of docker's `run` that it doesn't have.
    less: &'static [&'static str],
    /// Its flags before the command.
    globals: &'static [FlagSpec],
    /// Whether those may stand behind `run` as well.
    globals_anywhere: bool,
    /// The flags by which an app joins a container: with docker, names come with the network.
    pub joins: &'static [&'static str],
    /// The network of a container without `--network`, for flags that set something of it.
    pub default_network: &'static str,
    /// Reads a value of `--network`.
    pub networks: fn(&str) -> Result<Vec<Attachment>, FieldError>,
}

/// Docker's own.
pub static DOCKER: Client = Client {
    program: "docker",
    more: &[],
    less: &[],
    globals: GLOBAL,
    globals_anywhere: false,
    joins: &["network"],
    default_network: "default",
    networks: network::of_docker,
};

/// Podman's.
pub static PODMAN: Client = Client {
    program: "podman",
    more: PODMAN_MORE,
    less: PODMAN_LESS,
    globals: PODMAN_GLOBAL,
    globals_anywhere: true,
    joins: &["network", "uts"],
    default_network: "podman",
    networks: network::of_podman,
};

const PODMAN_LESS: &[&str] = &[
    "cpu-count",
    "cpu-percent",
    "domainname",
    "io-maxbandwidth",
    "io-maxiops",
    "isolation",
    "link",
    "link-local-ip",
    "net-alias",
    "use-api-socket",
    "volume-driver",
];

const POD: (&str, &str) =
    ("a pod has a network of its own, and a container can only join one", "leave it out");

/// Those of older and newer versions and the hidden ones included.
const PODMAN_MORE: &[FlagSpec] = &[
    value("arch"),
    value("authfile"),
    value("cert-dir"),
    value("cgroup-conf"),
    value("cgroups"),
    value("chrootdirs"),
    value("conmon-pidfile"),
    value("creds"),
    value("decryption-key"),
    switch("env-host"),
    value("env-merge"),
    value("gidmap"),
    value("group-entry"),
    value("health-log-destination"),
    value("health-max-log-count"),
    value("health-max-log-size"),
    value("health-on-failure"),
    value("health-startup-cmd"),
    value("health-startup-interval"),
    value("health-startup-retries"),
    value("health-startup-success"),
    value("health-startup-timeout"),
    value("hosts-file"),
    value("hostuser"),
    switch("http-proxy"),
    value("image-volume"),
    value("init-ctr"),
    value("init-path"),
    value("intel-rdt-closid"),
    switch("no-hostname"),
    switch("no-hosts"),
    value("os"),
    switch("passwd"),
    value("passwd-entry"),
    value("personality"),
    value("pidfile"),
    value("pod").refused(POD.0, POD.1),
    value("pod-id-file").refused(POD.0, POD.1),
    value("preserve-fd"),
    value("preserve-fds"),
    switch("read-only-tmpfs"),
    switch("replace"),
    value("requires"),
    value("retry"),
    value("retry-delay"),
    switch("rmi"),
    switch("rootfs"),
    value("sdnotify"),
    value("seccomp-policy"),
    value("secret"),
    value("shm-size-systemd"),
    value("signature-policy"),
    value("subgidname"),
    value("subuidname"),
    value("systemd"),
    value("timeout"),
    switch("tls-verify"),
    value("tz"),
    value("uidmap"),
    value("umask"),
    value("unsetenv"),
    switch("unsetenv-all"),
    value("uts").handled("without it, the sidecar's host name is the container's"),
    value("variant"),
];

const PODMAN_GLOBAL: &[FlagSpec] = &[
    value("cdi-spec-dir"),
    value("cgroup-manager"),
    value("config").handled("where podman's own settings are"),
    value("conmon"),
    value("connection").short('c').handled("which engine"),
    value("context").handled("which engine"),
    value("cpu-profile"),
    value("db-backend"),
    switch("debug").short('D'),
    value("events-backend"),
    switch("help").handled("podman prints its own help"),
    value("hooks-dir"),
    value("host").short('H').handled("which engine"),
    value("identity").handled("which engine"),
    value("imagestore"),
    value("log-level"),
    value("memory-profile"),
    value("module"),
    value("namespace"),
    value("network-cmd-path"),
    value("network-config-dir"),
    switch("noout"),
    value("out"),
    switch("pull-option"),
    switch("remote").short('r').handled("which engine"),
    value("root"),
    value("runroot"),
    value("runtime"),
    value("runtime-flag"),
    value("ssh"),
    value("storage-driver"),
    value("storage-opt"),
    switch("syslog"),
    value("tls-ca").handled("which engine"),
    value("tls-cert").handled("which engine"),
    value("tls-key").handled("which engine"),
    value("tmpdir"),
    switch("transient-store"),
    value("url").handled("which engine"),
    switch("version").short('v').handled("podman prints its own version"),
    value("volumepath"),
];

/// Where a flag is looked for.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// Before the command.
    Global,
    /// Behind `run`.
    Run,
}

impl Client {
    /// The flags that may stand there; the first of a name counts.
    pub fn flags(&'static self, part: Part) -> impl Iterator<Item = &'static FlagSpec> {
        let (run, globals): (&[_], &[_]) = match part {
            Part::Global => (&[], self.globals),
            Part::Run if self.globals_anywhere => (RUN, self.globals),
            Part::Run => (RUN, &[]),
        };
        let more = self.more.iter().filter(move |_| matches!(part, Part::Run));
        let run = run.iter().filter(move |spec| !self.less.contains(&spec.long));
        more.chain(run).chain(globals)
    }

    /// The words of a flag that stands for where the containers are, with which the client can
    /// be asked of the same ones again.
    pub fn is_global(&self, spec: &FlagSpec) -> bool {
        self.globals.iter().any(|global| global.long == spec.long)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;

    use super::super::table::Takes;
    use super::*;

    #[test]
    fn no_name_stands_twice() {
        for client in [&DOCKER, &PODMAN] {
            for part in [client.more, client.globals] {
                let long: BTreeSet<_> = part.iter().map(|flag| flag.long).collect();
                assert_eq!(long.len(), part.len(), "{}", client.program);
            }
            for less in client.less {
                assert!(RUN.iter().any(|flag| flag.long == *less), "{less}");
            }
        }
    }

    /// (long, short, takes a value) of every flag in a help text.
    fn flags_of_help(help: &str) -> Vec<(String, Option<char>, bool)> {
        help.lines()
            .filter_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let at = words.iter().position(|word| word.starts_with("--"))?;
                let short = match (at, words.first()) {
                    (0, _) => None,
                    (1, Some(first)) if first.starts_with('-') && first.ends_with(',') => {
                        first.chars().nth(1)
                    }
                    _ => return None,
                };
                let indent = line.len() - line.trim_start().len();
                let name_ends = line.find(words[at])? + words[at].len();
                let takes = line[name_ends..].starts_with(' ')
                    && !line[name_ends..].starts_with("  ")
                    && words.len() > at + 1;
                (indent <= 6).then(|| (words[at][2..].to_owned(), short, takes))
            })
            .collect()
    }

    /// Compares the table with the program's own help, if the program is here.
    fn knows_every_flag(client: &'static Client, words: &[&str], part: Part, at_least: usize) {
        let Ok(output) = Command::new(client.program).args(words).output() else {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no {}", client.program);
            eprintln!("SKIPPED: there is no {} on this machine", client.program);
            return;
        };
        let flags = flags_of_help(&String::from_utf8_lossy(&output.stdout));
        assert!(flags.len() > at_least, "only {} flags understood", flags.len());
        for (long, short, takes) in flags {
            let name = format!("{} {} --{long}", client.program, words.join(" "));
            let Some(spec) = client.flags(part).find(|spec| spec.long == long) else {
                panic!("{name} is not in the table");
            };
            assert_eq!(spec.short, short, "{name}");
            assert_eq!(spec.takes == Takes::Value, takes, "{name}");
        }
    }

    #[test]
    fn the_table_knows_every_flag_of_this_machines_docker() {
        knows_every_flag(&DOCKER, &["run", "--help"], Part::Run, 80);
    }

    #[test]
    fn the_table_knows_every_flag_of_this_machines_podman() {
        knows_every_flag(&PODMAN, &["run", "--help"], Part::Run, 100);
        knows_every_flag(&PODMAN, &["--help"], Part::Global, 20);
    }

    #[test]
    fn a_flag_that_podman_lacks_is_unknown_to_it() {
        let has = |long: &str| PODMAN.flags(Part::Run).any(|spec| spec.long == long);
        assert!(has("network") && has("secret") && has("root") && has("rm"));
        assert!(!has("link") && !has("domainname"));
        assert!(!DOCKER.flags(Part::Run).any(|spec| spec.long == "secret"));
    }
}
