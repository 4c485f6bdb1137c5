//! `mirrord up NAME` and `mirrord down NAME`.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Stood, Told, engine, stand, sum};
use crate::args::Options;
use crate::docker_run::client::DOCKER;
use crate::docker_run::{Line, Rehomed, parse, rehome};
use crate::env_rules::Delivery;
use crate::failure::Failure;
use crate::front;
use crate::lock::{self, Entry};
use crate::progress::Progress;
use crate::session::events::Event;
use crate::session::standing::{Caller, Place, Standing};
use crate::session::words::Words;
use crate::settings::Settings;

/// The longest `--wait`, in seconds.
const DAY: u64 = 24 * 60 * 60;

/// What stands behind `up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// What may stand before it as well.
    #[command(flatten)]
    pub options: Box<Options>,
    /// Publish a port of the container's, as docker run does
    #[arg(short = 'p', long = "publish", value_name = "PORTS")]
    pub published: Vec<String>,
    /// A network of the container's, as docker run takes it
    #[arg(long = "network", value_name = "NETWORK")]
    pub networks: Vec<String>,
    /// Write the target's variables to this file, for docker's own --env-file
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// How many seconds it waits for a container, once who has called this is gone
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    #[arg(value_parser = clap::value_parser!(u64).range(..=DAY))]
    pub wait: u64,
    /// The network's name: containers are started with --network container:NAME
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Brings a session up for whoever joins its network, or finds the one that stands there.
///
/// # Errors
/// It does not come up; then nothing of it is left.
pub fn up(args: &UpArgs, settings: &Settings, progress: &mut Progress) -> Result<(), Failure> {
    let mut plan = front::plan_of_compose(settings, rehomed(args)?)?;
    if plan.plane.loads_layer(&plan.layer) {
        return Err(Failure::new(
            "a container that joins a network cannot be given the preload library",
        )
        .hint("leave plane and unix_streams out, or use 'mirrord docker run'"));
    }
    plan.standing = Some(Standing {
        place: place(&args.name),
        asked: sum(&plan)?,
        caller: Caller::now(parent_id()).with_grace(args.wait),
    });
    let (session, name, delivery) = runtime()?.block_on(async {
        let engine = engine().await?;
        let mut say = |told: Told<'_>| match told {
            Told::Anew => progress.note(Told::ANEW),
            Told::Event(event) => tell(progress, event),
        };
        let stood = stand(&plan, &engine, &mut say).await?;
        let Stood { session, name, target, pinned } = stood;
        let delivery = settings.env.deliver(target.env, &HashSet::new());
        let entry = Entry::of(&plan, pinned, delivery.names());
        let settled = lock::settle(settings.locking, &args.name, &entry)
            .and_then(|()| args.env_file.as_ref().map_or(Ok(()), |path| write(path, &delivery)));
        if let Err(failure) = settled {
            super::end(&engine, &place(&args.name)).await?;
            return Err(failure);
        }
        Ok((session, name, delivery))
    })?;
    if args.env_file.is_some() {
        let by_name = delivery.by_name.into_iter().map(|(name, _)| (name, "it has several lines"));
        for (name, why) in delivery.undelivered.into_iter().chain(by_name) {
            progress.warning(&format!("the target's variable {name} is left out: {why}"));
        }
    }
    progress.ready(&plan.in_place_of(&name));
    let text = format!(
        "--network container:{} joins it; 'mirrord down {}' ends it, and so does the end of who did",
        args.name, args.name
    );
    progress.detached(&session.to_string(), &text);
    Ok(())
}

/// Ends the session of that name; it is no error if there is none.
///
/// # Errors
/// The engine refuses.
pub fn down(name: &str) -> Result<(), Failure> {
    runtime()?.block_on(async { super::end(&engine().await?, &place(name)).await })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::caused_by("cannot start a session", &error))
}

fn place(name: &str) -> Place {
    Place { project: String::new(), service: name.to_owned() }
}

/// Read as docker would: the name is where an image's would be.
fn rehomed(args: &UpArgs) -> Result<Rehomed, Failure> {
    let published = args.published.iter().flat_map(|ports| ["-p", ports]);
    let networks = args.networks.iter().flat_map(|network| ["--network", network]);
    let words: Vec<OsString> = ["run"]
        .into_iter()
        .chain(published)
        .chain(networks)
        .chain([args.name.as_str()])
        .map(OsString::from)
        .collect();
    match parse::line(&DOCKER, &words) {
        Ok(Line::Run(run)) => Ok(rehome::rehome(&run)?.0),
        Ok(Line::Docker) => Err(Failure::new(format!("{:?} is no name", args.name))),
        Err(error) => Err(error.failure(&DOCKER)),
    }
}

fn tell(progress: &mut Progress, event: &Event) {
    match (event, Words::of(event)) {
        (Event::Step { step, took }, _) => progress.step(*step, *took),
        (Event::Log { from, line }, _) => progress.log(from, line),
        (_, Some(Words::Detail(text))) => progress.detail(&text),
        (_, Some(Words::Note(text))) => progress.note(&text),
        (_, Some(Words::Warning(text))) => progress.warning(&text),
        (_, Some(Words::Failure(failure))) => progress.failure(&failure),
        (_, None) => {}
    }
}

/// Variables may be secrets: the file is its user's alone, and whole or not there.
fn write(path: &Path, delivery: &Delivery) -> Result<(), Failure> {
    let written = write_text(path, &delivery.file);
    written.map_err(|error| Failure::caused_by(format!("cannot write {}", path.display()), &error))
}

fn write_text(path: &Path, text: &str) -> io::Result<()> {
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(format!(".{}", std::process::id()));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&hidden);
    let done = written
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&hidden, path));
    if done.is_err() {
        let _ = fs::remove_file(&hidden);
    }
    done
}
