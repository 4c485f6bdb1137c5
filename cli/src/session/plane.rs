//! Who redirects the app's network, and where the session's proxy runs.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use mirrord_protocol::control::{LayerConfig, LayerKey, PlaneKind, SHARED_FOLDER};
use serde::{Deserialize, Serialize};

use super::SessionId;

/// `--plane`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PlaneArg {
    /// The kernel; where the engine or the kernel does not allow that, the preload library.
    #[default]
    Auto,
    /// The kernel, in the network namespace of a sidecar with capabilities.
    Netns,
    /// The preload library, beside a sidecar without capabilities.
    Layer,
}

/// Who redirects the app's network, and where the session's proxy runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plane {
    /// The kernel, in the sidecar's network namespace.
    Netns {
        /// Whether the layer may do it if the kernel can't.
        or_layer: bool,
    },
    /// The preload library in the app's container, with the proxy in a sidecar.
    Layer,
    /// The preload library in processes of this machine, and so is the proxy.
    Here(Here),
}

/// A session whose app is a process of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Here {
    /// The session's own folder.
    pub folder: PathBuf,
    /// What the layer shows to the proxy.
    pub key: LayerKey,
    /// The proxy's abstract unix socket.
    pub socket: String,
}

/// What is asked for of the layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerWishes {
    /// Programs that are left alone.
    pub skipped: Vec<String>,
    /// Ports of the app, each with the one that stands for it.
    pub listen_ports: Vec<(u16, u16)>,
    /// Regular expressions of unix sockets that are the target's.
    pub unix_streams: Vec<String>,
}

impl Here {
    /// The proxy's part of the folder, which is nobody else's.
    pub fn private(&self) -> PathBuf {
        self.folder.join("proxy")
    }

    /// Where the preload library is.
    pub fn library(&self) -> PathBuf {
        self.folder.join(mirrord_protocol::layer::LAYER_FILE)
    }

    /// The value of the variable that leads the layer to the proxy.
    pub fn address(&self) -> String {
        let LayerKey(key) = self.key;
        let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}:{digits}", self.socket)
    }
}

impl Plane {
    /// The one that an option names, for a container.
    pub fn of_container(arg: PlaneArg) -> Self {
        match arg {
            PlaneArg::Auto => Self::Netns { or_layer: true },
            PlaneArg::Netns => Self::Netns { or_layer: false },
            PlaneArg::Layer => Self::Layer,
        }
    }

    /// The session of a process of this machine, if it is one.
    pub fn here(&self) -> Option<&Here> {
        match self {
            Self::Here(here) => Some(here),
            _ => None,
        }
    }

    /// Whether the kernel redirects.
    pub fn is_netns(&self) -> bool {
        matches!(self, Self::Netns { .. })
    }

    /// Whether the preload library is in the app's container.
    pub fn loads_layer(&self, wishes: &LayerWishes) -> bool {
        match self {
            Self::Netns { .. } => !wishes.unix_streams.is_empty(),
            Self::Layer => true,
            Self::Here(_) => false,
        }
    }

    /// The proxy's folder, as the proxy sees it.
    pub fn folder(&self) -> String {
        let folder = self.here().map(Here::private);
        folder.as_deref().unwrap_or(Path::new(SHARED_FOLDER)).to_string_lossy().into_owned()
    }

    /// What the proxy is told.
    pub fn kind(&self, session: &SessionId, wishes: &LayerWishes, hostname: bool) -> PlaneKind {
        let (socket, key) = match self {
            Self::Netns { .. } | Self::Layer => (socket(session), None),
            Self::Here(here) => (here.socket.clone(), Some(here.key)),
        };
        let config = LayerConfig {
            socket,
            key,
            hostname,
            owns_etc: *self == Self::Layer,
            skipped: wishes.skipped.clone(),
            listen_ports: wishes.listen_ports.clone(),
            unix_streams: wishes.unix_streams.clone(),
        };
        match self {
            Self::Netns { .. } => PlaneKind::Netns(self.loads_layer(wishes).then_some(config)),
            _ => PlaneKind::Layer(config),
        }
    }
}

/// The proxy's abstract unix socket in a namespace that is the session's own.
pub fn socket(session: impl std::fmt::Display) -> String {
    format!("mirrord-{session}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_is_led_to_the_socket_with_its_key() {
        let here = Here {
            folder: PathBuf::from("/tmp/mirrord-1"),
            key: LayerKey([0xa5; 16]),
            socket: "mirrord-1-2".to_owned(),
        };
        assert_eq!(here.address(), format!("mirrord-1-2:{}", "a5".repeat(16)));
        assert_eq!(here.library(), Path::new("/tmp/mirrord-1/libmirrord_layer.so"));
        assert_eq!(Plane::Here(here).folder(), "/tmp/mirrord-1/proxy");
        assert_eq!(Plane::Layer.folder(), SHARED_FOLDER);
    }

    #[test]
    fn the_layer_is_beside_the_kernel_for_unix_sockets_alone() {
        let plane = Plane::of_container(PlaneArg::Auto);
        let mut wishes = LayerWishes::default();
        assert!(!plane.loads_layer(&wishes) && Plane::Layer.loads_layer(&wishes));
        wishes.unix_streams.push("^/run/".to_owned());
        assert!(plane.loads_layer(&wishes));
        let session = SessionId::random().expect("random");
        let PlaneKind::Netns(Some(config)) = plane.kind(&session, &wishes, true) else { panic!() };
        assert!(config.key.is_none() && !config.owns_etc);
        assert_eq!(config.unix_streams, ["^/run/"]);
    }

    #[test]
    fn only_a_machine_that_others_use_needs_a_key() {
        let session = SessionId::random().expect("random");
        let kind = |plane: Plane| plane.kind(&session, &LayerWishes::default(), true);
        assert!(matches!(kind(Plane::of_container(PlaneArg::Auto)), PlaneKind::Netns(None)));
        let PlaneKind::Layer(config) = kind(Plane::of_container(PlaneArg::Layer)) else { panic!() };
        assert!(config.key.is_none() && config.owns_etc);
    }
}
