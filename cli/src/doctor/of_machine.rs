//! This machine: docker's own command, and the link that makes us one of its plugins.

use std::process::Command;

use super::report::Item;
use crate::plugin::Link;

const CLIENT: &str = "client";
const PLUGIN: &str = "plugin";

/// Whether docker's command is there, and knows us; whether its sessions can run. Who has podman
/// need not have it.
pub fn machine(fix: bool, has_podman: bool) -> (Vec<Item>, bool) {
    match client() {
        Ok(client) => (vec![client, plugin(fix)], true),
        Err(missing) if has_podman => (vec![missing.spare()], false),
        Err(missing) => (vec![missing, plugin(fix)], false),
    }
}

fn client() -> Result<Item, Item> {
    match Command::new("docker").arg("--version").output() {
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Ok(Item::fine(CLIENT, version))
        }
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let text = format!("docker --version fails: {words}");
            Err(Item::missing(CLIENT, text).hint("install the Docker client anew"))
        }
        Err(error) => Err(Item::missing(CLIENT, format!("docker cannot be started: {error}"))
            .hint("install the Docker client, or add its folder to PATH")),
    }
}

fn plugin(fix: bool) -> Item {
    let cannot = |error: &dyn std::fmt::Display| {
        Item::missing(PLUGIN, format!("'docker mirrord' cannot be linked: {error}"))
            .hint("link docker-mirrord in docker's folder cli-plugins to this program by hand")
    };
    let link = match Link::of_user() {
        Ok(link) => link,
        Err(error) => return cannot(&error),
    };
    let path = link.path.display();
    if fix && !link.is_right() {
        return match link.make() {
            Ok(()) => Item::fine(PLUGIN, format!("'docker mirrord' is this program now: {path}")),
            Err(error) => cannot(&format_args!("{path}: {error}")),
        };
    }
    let hint = "'mirrord doctor --fix' links it to this program";
    match link.leads_to() {
        _ if link.is_right() => {
            Item::fine(PLUGIN, format!("'docker mirrord' is this program: {path}"))
        }
        Some(other) => {
            let text = format!("'docker mirrord' is another program: {}", other.display());
            Item::note(PLUGIN, text).hint(hint)
        }
        None => Item::note(PLUGIN, "'docker mirrord' is no command yet").hint(hint),
    }
}
