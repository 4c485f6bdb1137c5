//! The ways between the same two ends.

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

/// What is compared: nothing between, two bare relays between, and the product, in each of its
/// forms by name.
pub struct Ways<'a> {
    /// Without anything between.
    pub direct: Way<'a>,
    /// What the others are measured against.
    pub floor: Way<'a>,
    /// With a single bare relay between, where one is enough.
    pub one: Option<Way<'a>>,
    /// With the product between.
    pub ours: Vec<(&'static str, Way<'a>)>,
}

/// Everything between which is measured.
pub struct Stage<'lab> {
    scene: Scene<'lab>,
    /// The app of the floor: a relay shares its namespace.
    near: Container<'lab>,
    /// One for each of [`OUTGOING`].
    sessions: Vec<Session<'lab>>,
    _relays: Vec<Container<'lab>>,
}

/// The kernel, and the library in a process and in a container: a port for each, from this one on.
const FIRST: u16 = 7004;
const OUTGOING: [&str; 3] = ["outgoing", "outgoing, exec", "outgoing, --plane layer"];
const STOLEN: [&str; 3] = ["stolen", "stolen, exec", "stolen, --plane layer"];

impl<'lab> Stage<'lab> {
    /// Starts it all.
    ///
    /// # Errors
    /// If the engine or the product fails.
    pub fn open(lab: &'lab Lab) -> Result<Self> {
        let scene = Scene::open(lab)?;
        let near = lab.container("near").probe()?;
        let steal = ["--steal"];
        let sessions = vec![
            scene.mirrord().with(steal).probe("app")?,
            scene.exec().with(steal).probe()?,
            scene.mirrord().with(steal).with(["--plane", "layer"]).loaded_probe("loaded")?,
        ];
        scene.client().must("serve quiet 0.0.0.0:7000 peer")?;
        scene.target.probe().must("serve quiet 0.0.0.0:7001 original")?;
        near.probe().must("serve quiet 0.0.0.0:7003 near")?;
        for (session, port) in sessions.iter().zip(FIRST..) {
            session.app().must(&format!("serve quiet 0.0.0.0:{port} local"))?;
            scene.until_whoami("local", port)?;
        }
        let relays = relays(lab, &scene, &near)?;
        scene.until_whoami("near", 7002)?;
        wait::until("the outgoing floor", || {
            near.probe().must("ask 127.0.0.1:7000 whoami").map(Some)
        })?;
        Ok(Self { scene, near, sessions, _relays: relays })
    }

    /// Out of the app's place.
    ///
    /// # Errors
    /// If a container is gone.
    pub fn outgoing(&self) -> Result<Ways<'_>> {
        let peer = format!("{}:7000", self.scene.client.address()?);
        let ours = self.sessions.iter().map(|session| Way { who: session.app(), at: peer.clone() });
        Ok(Ways {
            direct: Way { who: self.scene.target.probe(), at: peer.clone() },
            floor: Way { who: self.near.probe(), at: "127.0.0.1:7000".into() },
            one: Some(Way { who: self.scene.target.probe(), at: "127.0.0.1:7010".into() }),
            ours: OUTGOING.into_iter().zip(ours).collect(),
        })
    }

    /// Into the app's place.
    #[must_use]
    pub fn incoming(&self) -> Ways<'_> {
        let to = |port| Way { who: self.scene.client(), at: self.scene.at(port) };
        let ours = STOLEN.into_iter().zip((FIRST..).map(to)).collect();
        Ways { direct: to(7001), floor: to(7002), one: Some(to(7011)), ours }
    }
}

/// Two bare relays out, two in; each pair shares a volume with its unix socket. And one out, one in.
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
        relay("out-one", &scene.target, "127.0.0.1:7010", &peer)?,
        relay("in-one", &scene.target, "0.0.0.0:7011", "127.0.0.1:7001")?,
    ])
}
