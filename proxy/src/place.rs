//! Makes the app's network the targets' place: redirecting, then names. Who redirects is the
//! [`PlaneKind`]: the kernel, or a library in each of the app's processes.

mod files;
mod netns;

use std::rc::Rc;

use mirrord_protocol::control::{PlaneKind, ProxyConfig};
use mirrord_protocol::frame::Description;
use tokio::task::JoinSet;

use crate::layer::{Layer, Provision, UnixAlone};
use crate::link::Link;

pub(crate) use files::Files;
pub(crate) use netns::Netns;

/// What stands once the app may start.
pub(crate) enum Place {
    /// The kernel redirects, in this namespace.
    Netns(Rc<Netns>),
    /// A library in the app's processes does.
    Layer(Rc<Layer>),
}

impl Place {
    /// Sets up everything that the app must find when it starts, and serves it in `tasks`. The
    /// first target's addresses are where the app's connections come from, and its names are the
    /// app's.
    pub(crate) async fn take(
        link: &Rc<Link>,
        targets: &[&Description],
        provision: &Provision,
        tasks: &mut JoinSet<anyhow::Error>,
    ) -> anyhow::Result<Self> {
        match &link.config.plane {
            PlaneKind::Netns(layer) => {
                let netns = Netns::take(link, targets, tasks).await?;
                if let Some(config) = layer {
                    UnixAlone::take(link, config, provision, tasks)?;
                }
                Ok(Self::Netns(netns))
            }
            PlaneKind::Layer(config) => {
                Ok(Self::Layer(Layer::take(link, config, targets, provision, tasks)?))
            }
        }
    }

    /// Follows targets that have moved, or that are new; nothing if they are as before.
    pub(crate) fn change(
        &self,
        config: &ProxyConfig,
        targets: &[&Description],
    ) -> anyhow::Result<()> {
        match self {
            Self::Netns(place) => place.change(config, targets),
            Self::Layer(layer) => layer.change(config, targets),
        }
    }
}
