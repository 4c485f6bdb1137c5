//! The sidecar and the agent.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerCreateResponse, HostConfig, HostConfigLogConfig, Mount,
    MountType, VolumeCreateRequest,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions};
use mirrord_netns::SIDECAR_SYSCTLS;
use mirrord_protocol::control::SHARED_FOLDER;

use super::clean::{ROLE_LABEL, SESSION_LABEL};
use super::connect::{Engine, EngineError};
use super::image::LAYER_FOLDER;
use super::network;
use super::target::Target;
use crate::docker_run::Rehomed;
use crate::session::SessionId;
use crate::session::standing::Standing;

/// Lets the app, which has no capability, listen on any port.
const ANY_PORT: (&str, &str) = ("net.ipv4.ip_unprivileged_port_start", "0");

/// What an agent that copies has of a crowded machine, where a container has 1024 (cpu-shares of
/// docker-run(1)): whom it copies goes first. Podman without root often has no say in it.
const MIRROR_SHARES: i64 = 64;

/// Which of our two containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The sidecar, in which the proxy runs.
    Proxy,
    /// The agent.
    Agent,
}

impl Role {
    /// Its word in labels, names and commands.
    pub fn word(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Agent => "agent",
        }
    }

    fn capabilities(self, knows_bpf: bool, unix_sockets: bool) -> Vec<String> {
        let bpf = if knows_bpf { "BPF" } else { "SYS_ADMIN" };
        let own: &[&str] = match self {
            Self::Proxy => &[],
            // Who connects to a unix socket has to be allowed to write to it.
            Self::Agent if unix_sockets => &["SYS_PTRACE", "DAC_OVERRIDE"],
            Self::Agent => &["SYS_PTRACE", "DAC_READ_SEARCH"],
        };
        ["NET_ADMIN", "NET_RAW", bpf].iter().chain(own).map(|name| (*name).to_owned()).collect()
    }
}

/// The name of a session's container.
pub fn name(role: Role, session: &SessionId) -> String {
    format!("mirrord-{}-{session}", role.word())
}

/// Who redirects in a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SidecarPlane {
    /// The kernel.
    Netns {
        /// Whether the preload library, which the sidecar's image brings, has a part in it.
        layer: bool,
    },
    /// The preload library alone.
    Layer,
}

/// The volume through which the app's container gets the preload library.
pub fn layer_volume_name(session: impl std::fmt::Display) -> String {
    format!("mirrord-layer-{session}")
}

/// The engine fills it with what the image has there.
fn layer_volume(session: &SessionId) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(layer_volume_name(session)),
        target: Some(LAYER_FOLDER.to_owned()),
        ..Mount::default()
    }
}

/// In the place of a volume, which would be another user's where an engine remaps users.
fn own_folder() -> Option<HashMap<String, String>> {
    Some(HashMap::from([(SHARED_FOLDER.to_owned(), String::new())]))
}

/// What the app calls itself.
pub struct Names {
    /// Its host name; the engine's choice if it has none.
    pub host: Option<String>,
    /// Its domain name, if it has one.
    pub domain: Option<String>,
}

/// What both containers have in common.
pub struct Common<'a> {
    /// Where they are created.
    pub engine: &'a Engine,
    /// Whose they are.
    pub session: &'a SessionId,
    /// Our image.
    pub image: &'a str,
    /// Whether the agent connects to unix sockets.
    pub unix_sockets: bool,
    /// Whether the target's traffic is copied.
    pub mirrors: bool,
    /// The service of a compose project that the sidecar stands for, if it does.
    pub standing: Option<&'a Standing>,
}

impl Common<'_> {
    /// The sidecar, with the flags that the user gave for the namespace.
    pub async fn create_sidecar(
        &self,
        names: &Names,
        rehomed: &Rehomed,
        image_ports: &[String],
        remote_dns: bool,
        plane: SidecarPlane,
        userns: Option<&str>,
    ) -> Result<ContainerCreateResponse, EngineError> {
        let mut body = self.body(Role::Proxy);
        body.hostname = names.host.clone();
        body.domainname = names.domain.clone();
        let host = body.host_config.get_or_insert_default();
        let own: &[_] = match plane {
            SidecarPlane::Netns { .. } => SIDECAR_SYSCTLS,
            SidecarPlane::Layer => &[],
        };
        let sysctls = own.iter().copied().chain([ANY_PORT]);
        if let Some(userns) = userns {
            host.userns_mode = Some(userns.to_owned());
            host.tmpfs = own_folder();
            // What the engine writes for a container is another user's as well.
            host.cap_add.iter_mut().for_each(|added| added.push("DAC_OVERRIDE".to_owned()));
        }
        if plane == SidecarPlane::Layer {
            host.cap_add = None;
        }
        if plane != (SidecarPlane::Netns { layer: false }) {
            host.mounts = Some(vec![layer_volume(self.session)]);
        }
        host.sysctls =
            Some(sysctls.map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
        // Podman's name server asks from the host, not from the container.
        let names_by_proxy = remote_dns && !self.engine.is_podman();
        network::apply(rehomed, image_ports, names_by_proxy, &mut body);
        let later = self.networks_for_later(&mut body, rehomed);
        if plane != (SidecarPlane::Netns { layer: false }) {
            self.create_layer_volume().await?;
        }
        let created = self.create(Role::Proxy, body).await?;
        for name in later {
            self.connect(&created.id, &name, rehomed).await?;
        }
        Ok(created)
    }

    /// A container like a sidecar that only tries whether it may redirect; its id.
    pub async fn create_check(&self) -> Result<String, EngineError> {
        let mut body = self.body(Role::Proxy);
        body.cmd = Some(vec![Role::Proxy.word().to_owned(), "--check".to_owned()]);
        let host = body.host_config.get_or_insert_default();
        host.auto_remove = None;
        host.sysctls = Some(
            SIDECAR_SYSCTLS.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        );
        Ok(self.create(Role::Proxy, body).await?.id)
    }

    /// The agent, in the target's namespaces and with the volume of the sidecar, if there is one; its
    /// id. Where the engine remaps users it keeps the machine's, who alone may load BPF programs.
    pub async fn create_agent(
        &self,
        target: &Target,
        sidecar: Option<&str>,
        remaps_users: bool,
    ) -> Result<String, EngineError> {
        let mut body = self.body(Role::Agent);
        let host = body.host_config.get_or_insert_default();
        host.network_mode = Some(format!("container:{}", target.id));
        host.pid_mode = Some(target.pid_mode.clone());
        if self.engine.is_podman() {
            // With docker, the host name comes with the network.
            host.uts_mode = host.network_mode.clone();
        }
        if remaps_users {
            host.userns_mode = Some("host".to_owned());
            host.tmpfs = own_folder();
        }
        if self.mirrors && !self.engine.is_podman() {
            host.cpu_shares = Some(MIRROR_SHARES);
        }
        host.volumes_from = sidecar.map(|sidecar| vec![sidecar.to_owned()]);
        Ok(self.create(Role::Agent, body).await?.id)
    }

    /// With its label: podman takes none from the mount.
    async fn create_layer_volume(&self) -> Result<(), EngineError> {
        let labels = HashMap::from([(SESSION_LABEL.to_owned(), self.session.to_string())]);
        let request = VolumeCreateRequest {
            name: Some(layer_volume_name(self.session)),
            labels: Some(labels),
            ..VolumeCreateRequest::default()
        };
        let created = self.engine.api().create_volume(request).await;
        let explain = |error| self.engine.explain("cannot create mirrord's volume", error);
        created.map(drop).map_err(explain)
    }

    /// Starts one of them.
    pub async fn start(&self, role: Role, id: &str) -> Result<(), EngineError> {
        let doing = match role {
            Role::Proxy => "cannot start the sidecar",
            Role::Agent => "cannot start the agent",
        };
        let started = self.engine.api().start_container(id, None::<StartContainerOptions>).await;
        started.map_err(|error| self.engine.explain(doing, error))
    }

    fn body(&self, role: Role) -> ContainerCreateBody {
        let mut labels = HashMap::from([
            (SESSION_LABEL.to_owned(), self.session.to_string()),
            (ROLE_LABEL.to_owned(), role.word().to_owned()),
        ]);
        labels.extend(self.standing.iter().flat_map(|standing| standing.place.labels()));
        ContainerCreateBody {
            image: Some(self.image.to_owned()),
            cmd: Some(vec![role.word().to_owned()]),
            labels: Some(labels),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            open_stdin: Some(true),
            stdin_once: Some(true),
            host_config: Some(HostConfig {
                auto_remove: Some(true),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(role.capabilities(self.engine.knows_bpf(), self.unix_sockets)),
                security_opt: Some(vec!["label=disable".into(), "no-new-privileges".into()]),
                // What they write on standard output carries the target's environment.
                log_config: Some(HostConfigLogConfig {
                    typ: Some("none".to_owned()),
                    config: None,
                }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    async fn create(
        &self,
        role: Role,
        body: ContainerCreateBody,
    ) -> Result<ContainerCreateResponse, EngineError> {
        let mut without_bpf = body.clone();
        let added = without_bpf.host_config.as_mut().and_then(|host| host.cap_add.as_mut());
        let bpf = added.and_then(|added| added.iter_mut().find(|name| *name == "BPF"));
        bpf.into_iter().for_each(|name| *name = "SYS_ADMIN".to_owned());
        match self.create_once(role, body).await {
            Err(error) if error.message().contains("CAP_BPF") => {
                self.create_once(role, without_bpf).await
            }
            other => other,
        }
    }

    async fn create_once(
        &self,
        role: Role,
        body: ContainerCreateBody,
    ) -> Result<ContainerCreateResponse, EngineError> {
        let name = match (role, self.standing) {
            (Role::Proxy, Some(standing)) => standing.place.sidecar(),
            _ => name(role, self.session),
        };
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let doing = match role {
            Role::Proxy => "cannot create the sidecar",
            Role::Agent => "cannot create the agent",
        };
        let created = self.engine.api().create_container(Some(options), body).await;
        created.map_err(|error| self.engine.explain(doing, error))
    }

    /// An older engine creates a container in one network; it joins the others afterwards.
    fn networks_for_later(&self, body: &mut ContainerCreateBody, rehomed: &Rehomed) -> Vec<String> {
        let endpoints =
            body.networking_config.as_mut().and_then(|config| config.endpoints_config.as_mut());
        let Some(endpoints) = endpoints.filter(|_| !self.engine.several_networks()) else {
            return Vec::new();
        };
        let later: Vec<String> =
            rehomed.networks.iter().skip(1).map(|network| network.name.clone()).collect();
        endpoints.retain(|name, _| !later.contains(name));
        later
    }

    async fn connect(&self, id: &str, name: &str, rehomed: &Rehomed) -> Result<(), EngineError> {
        let network = rehomed.networks.iter().find(|network| network.name == name);
        let request = bollard::models::NetworkConnectRequest {
            container: id.to_owned(),
            endpoint_config: network
                .map(|network| network::endpoint(network, rehomed.name.as_ref())),
        };
        let connected = self.engine.api().connect_network(name, request).await;
        connected.map_err(|error| {
            self.engine.explain(&format!("cannot connect the sidecar to the network {name}"), error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_without_cap_bpf_gets_sys_admin_instead() {
        let has = |role: Role, bpf, name: &str| {
            role.capabilities(bpf, false).iter().any(|found| found == name)
        };
        assert!(has(Role::Proxy, true, "BPF") && !has(Role::Proxy, true, "SYS_ADMIN"));
        assert!(has(Role::Agent, false, "SYS_ADMIN") && !has(Role::Agent, false, "BPF"));
    }

    #[test]
    fn an_agent_may_write_to_what_is_not_its_own_for_unix_sockets_alone() {
        let may = |unix| Role::Agent.capabilities(true, unix).contains(&"DAC_OVERRIDE".to_owned());
        assert!(may(true) && !may(false));
        assert!(!Role::Proxy.capabilities(true, true).contains(&"DAC_OVERRIDE".to_owned()));
    }
}
