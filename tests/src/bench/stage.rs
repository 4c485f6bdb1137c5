//! The three ways between the same two ends.

use anyhow::Result;

use crate::lab::{Container, Lab, PROBE};
use crate::mirrord::Session;
use crate::remote::Probe;
use crate::scene::Scene;
use crate::wait;

/// Open files that ten thousand connections take.
pub const FILES: [&str; 2] = ["--ulimit", "nofile=20000:20000"];

/// One way: who asks, and which address.
pub struct Way<'a> {
    /// The probe that measures.
    pub who: &'a Probe,
    /// Where it connects.
    pub at: String,
}

/// Everything between which is measured.
pub struct Stage<'lab> {
    scene: Scene<'lab>,
    /// The app of the floor: a relay shares its namespace.
    near: Container<'lab>,
    session: Session<'lab>,
    _relays: Vec<Container<'lab>>,
}

impl<'lab> Stage<'lab> {
    /// Starts it all.
    ///
    /// # Errors
    /// If the engine or the product fails.
    pub fn open(lab: &'lab Lab) -> Result<Self> {
        let scene = Scene::open(lab)?;
        let near = lab.container("near").probe()?;
        let session = scene.mirrord().with(["--steal"]).probe("app")?;
        scene.client().must("serve quiet 0.0.0.0:7000 peer")?;
        scene.target.probe().must("serve quiet 0.0.0.0:7001 original")?;
        near.probe().must("serve quiet 0.0.0.0:7003 near")?;
        session.app().must("serve quiet 0.0.0.0:7004 local")?;
        let relays = relays(lab, &scene, &near)?;
        scene.until_whoami("local", 7004)?;
        scene.until_whoami("near", 7002)?;
        wait::until("the outgoing floor", || {
            near.probe().must("ask 127.0.0.1:7000 whoami").map(Some)
        })?;
        Ok(Self { scene, near, session, _relays: relays })
    }

    /// Direct, floor, ours: out of the app's place.
    ///
    /// # Errors
    /// If a container is gone.
    pub fn outgoing(&self) -> Result<[Way<'_>; 3]> {
        let peer = format!("{}:7000", self.scene.client.address()?);
        Ok([
            Way { who: self.scene.target.probe(), at: peer.clone() },
            Way { who: self.near.probe(), at: "127.0.0.1:7000".into() },
            Way { who: self.session.app(), at: peer },
        ])
    }

    /// Direct, floor, ours: into the app's place.
    #[must_use]
    pub fn incoming(&self) -> [Way<'_>; 3] {
        [7001, 7002, 7004].map(|port| Way { who: self.scene.client(), at: self.scene.at(port) })
    }
}

/// Two bare relays out, two in; each pair shares a volume with its unix socket.
fn relays<'lab>(
    lab: &'lab Lab,
    scene: &Scene<'lab>,
    near: &Container<'lab>,
) -> Result<Vec<Container<'lab>>> {
    let volume = format!("{}:/run/floor", lab.volume("floor")?);
    let peer = format!("{}:7000", scene.client.address()?);
    let (out, into) = ("unix:/run/floor/out", "unix:/run/floor/in");
    let relay = |name: &str, beside: &Container<'_>, from: &str, to: &str| {
        let network = format!("container:{}", beside.name);
        let recipe = lab.container(name).with(["--network", &network, "-v", &volume]);
        recipe.start(PROBE, &["relay", from, to])
    };
    Ok(vec![
        relay("out-far", &scene.target, out, &peer)?,
        relay("out-near", near, "127.0.0.1:7000", out)?,
        relay("in-near", near, into, "127.0.0.1:7003")?,
        relay("in-far", &scene.target, "0.0.0.0:7002", into)?,
    ])
}
