//! Whether a container may do what a sidecar does.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use anyhow::Context;
use mirrord_netns::spoof::PacketSender;
use mirrord_netns::{MARK_TO_APP, Plan};
use mirrord_protocol::control::ProxyEvent;

use crate::report;

/// A target that nobody has (RFC 5737).
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Redirects the namespace for a moment, and says `waiting`, or what failed.
pub fn run() -> ExitCode {
    match mirrord_tunnel::on_one_thread(redirect()) {
        Ok(()) => {
            report::say(&ProxyEvent::Waiting);
            ExitCode::SUCCESS
        }
        Err(error) => {
            report::failed(&error);
            ExitCode::FAILURE
        }
    }
}

async fn redirect() -> anyhow::Result<()> {
    let plan = Plan { identity: vec![NOBODY], steer_tcp: true, steer_udp: true, ..Plan::default() };
    let plane = plan.apply().await.context("steering an app's traffic")?;
    PacketSender::open(MARK_TO_APP).context("opening a raw socket")?;
    drop(plane);
    Ok(())
}
