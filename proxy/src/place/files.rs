//! The files that the app's resolver reads.

use std::fs;

use anyhow::Context;
use bytes::Bytes;
use mirrord_protocol::control::ProxyConfig;
use mirrord_protocol::frame::Description;

use crate::names;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// What the app's resolver reads; what is absent stays as the engine made it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files {
    resolv_conf: Option<Bytes>,
    hosts: Vec<u8>,
}

impl Files {
    /// The first target's.
    pub(crate) fn of(config: &ProxyConfig, targets: &[&Description]) -> Self {
        let Some(first) = targets.first() else { return Self::default() };
        let wanted = config.remote_dns && !first.resolv_conf.is_empty();
        Self {
            resolv_conf: wanted.then(|| first.resolv_conf.clone()),
            hosts: names::hosts(&config.hosts, &first.hosts),
        }
    }

    /// Writes what differs. In place: the engine has mounted these very files into the app as well.
    pub(crate) fn write(&self, before: Option<&Self>) -> anyhow::Result<()> {
        if let Some(resolv_conf) = &self.resolv_conf
            && before.is_none_or(|before| before.resolv_conf != self.resolv_conf)
        {
            fs::write(RESOLV_CONF, resolv_conf)
                .with_context(|| format!("writing {RESOLV_CONF}"))?;
        }
        if before.is_none_or(|before| before.hosts != self.hosts) {
            fs::write(HOSTS, &self.hosts).with_context(|| format!("writing {HOSTS}"))?;
        }
        Ok(())
    }
}
