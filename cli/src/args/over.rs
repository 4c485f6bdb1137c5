//! Options that stand in two places.

use super::{ClusterOptions, ColorArg, Options, ProgressArg};

impl Options {
    /// These, above others. Lists are one list.
    pub fn over(self, below: &Self) -> Self {
        let joined = |above: Vec<String>, below: &[String]| [below, &above].concat();
        let below = below.clone();
        Self {
            target: self.target.or(below.target),
            service: self.service.or(below.service),
            config_file: self.config_file.or(below.config_file),
            cluster: self.cluster.over(below.cluster),
            steal: self.steal || below.steal,
            mirror: self.mirror || below.mirror,
            no_incoming: self.no_incoming || below.no_incoming,
            ports: joined(self.ports, &below.ports),
            ignore_ports: joined(self.ignore_ports, &below.ignore_ports),
            no_outgoing: self.no_outgoing || below.no_outgoing,
            no_tcp_outgoing: self.no_tcp_outgoing || below.no_tcp_outgoing,
            no_udp_outgoing: self.no_udp_outgoing || below.no_udp_outgoing,
            no_remote_dns: self.no_remote_dns || below.no_remote_dns,
            override_env_vars_include: self
                .override_env_vars_include
                .or(below.override_env_vars_include),
            override_env_vars_exclude: self
                .override_env_vars_exclude
                .or(below.override_env_vars_exclude),
            no_env: self.no_env || below.no_env,
            plane: self.plane.or(below.plane),
            skip_processes: joined(self.skip_processes, &below.skip_processes),
            skip_build_tools: self.skip_build_tools.or(below.skip_build_tools),
            lock: self.lock || below.lock,
            locked: self.locked || below.locked,
            explain: self.explain || below.explain,
            output: self.output.or(below.output),
            progress: self.progress.over(below.progress),
            quiet: self.quiet || below.quiet,
            verbose: self.verbose + below.verbose,
            color: self.color.over(below.color),
        }
    }
}

impl ClusterOptions {
    fn over(self, below: Self) -> Self {
        Self {
            target_namespace: self.target_namespace.or(below.target_namespace),
            context: self.context.or(below.context),
            kubeconfig: self.kubeconfig.or(below.kubeconfig),
            accept_invalid_certificates: self.accept_invalid_certificates
                || below.accept_invalid_certificates,
            all_replicas: self.all_replicas || below.all_replicas,
            agent_mode: self.agent_mode.or(below.agent_mode),
            agent_namespace: self.agent_namespace.or(below.agent_namespace),
            agent_image: self.agent_image.or(below.agent_image),
        }
    }
}

impl ProgressArg {
    fn over(self, below: Self) -> Self {
        if self == Self::default() { below } else { self }
    }
}

impl ColorArg {
    fn over(self, below: Self) -> Self {
        if self == Self::default() { below } else { self }
    }
}
