//! The usual stage: a network that only the target and its client are on.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::exec::Exec;
use crate::lab::{Container, Lab};
use crate::mirrord::Mirrord;
use crate::remote::Probe;
use crate::wait;

/// A target called `original` and a client beside it.
pub struct Scene<'lab> {
    /// Where everything happens.
    pub lab: &'lab Lab,
    /// The network that the developer's machine is not on.
    pub inner: String,
    /// Serves HTTP as `original` on port 80.
    pub target: Container<'lab>,
    /// Known to its network as `client`.
    pub client: Container<'lab>,
    /// The target's address there.
    pub address: String,
}

impl<'lab> Scene<'lab> {
    /// Sets it up.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn open(lab: &'lab Lab) -> Result<Self> {
        Self::open_with(lab, &[])
    }

    /// Sets it up with more words for the target's `docker run`.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn open_with(lab: &'lab Lab, words: &[&str]) -> Result<Self> {
        let inner = lab.network("inner")?;
        let target =
            lab.container("target").on(&inner).alias("target").with(words.to_vec()).probe()?;
        let client = lab.container("client").on(&inner).alias("client").probe()?;
        target.probe().must("serve http 0.0.0.0:80 original")?;
        let address = target.address()?;
        Ok(Self { lab, inner, target, client, address })
    }

    /// A `mirrord` in the target's place.
    #[must_use]
    pub fn mirrord(&self) -> Mirrord<'lab> {
        Mirrord::new(self.lab, &self.target.target())
    }

    /// A `mirrord exec` in the target's place.
    #[must_use]
    pub fn exec(&self) -> Exec<'lab> {
        Exec::new(self.lab, &self.target.target())
    }

    /// What the client asks.
    #[must_use]
    pub fn client(&self) -> &Probe {
        self.client.probe()
    }

    /// One of the target's ports, as its clients write it.
    #[must_use]
    pub fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.address)
    }

    /// Who answers the client's HTTP request on the target's port.
    ///
    /// # Errors
    /// If nobody does.
    pub fn answers(&self, port: u16) -> Result<Value> {
        Ok(self.client().must(&format!("ask {} http /", self.at(port)))?["answer"].clone())
    }

    /// Waits until `name` answers the client on the target's port; the answer.
    ///
    /// # Errors
    /// If it never does.
    pub fn until_answered_by(&self, name: &str, port: u16) -> Result<Value> {
        wait::until(&format!("{name} to answer port {port}"), || {
            Ok(Some(self.answers(port)?).filter(|answer| answer["name"] == name))
        })
    }

    /// Waits until `app` has a copy of what the client asks on port 80, which the target answers.
    ///
    /// # Errors
    /// If it never has, or another one answers.
    pub fn until_copied_to(&self, app: &Probe) -> Result<()> {
        wait::until_true("a copy", || {
            let answer = self.answers(80)?;
            ensure!(answer["name"] == "original", "{answer}");
            Ok(!app.events("request").is_empty())
        })
    }

    /// Waits until the client's line protocol is answered by `name` on the target's port.
    ///
    /// # Errors
    /// If it never is.
    pub fn until_whoami(&self, name: &str, port: u16) -> Result<Value> {
        wait::until(&format!("{name} to answer port {port}"), || {
            let answer = self.client().must(&format!("ask {} whoami", self.at(port)))?;
            Ok(Some(answer).filter(|answer| answer["answer"]["name"] == name))
        })
    }
}
